// The main of test programs that know no torch.
#define DOCTEST_CONFIG_IMPLEMENT
#include "tests/run_cases.h"

int main(int argc, char** argv) { return coppice::run_cases(argc, argv); }
