#include "src/base/signals.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include "tests/child_process.h"

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("signals: the first stop sets a flag, the second gives up with 128 + n") {
    for (const int number : {SIGTERM, SIGINT, SIGUSR1}) {
      CAPTURE(number);
      CHECK(run_in_child([&] {
              install_signal_handlers(0);
              if (stop_requested()) ::_exit(1);
              raise(number);
              if (!stop_requested()) ::_exit(2);
              ::_exit(75);
            }) == 75);
    }
    CHECK(run_in_child([] {
            install_signal_handlers();
            raise(SIGTERM);
            raise(SIGINT);
          }) == 128 + SIGINT);
  }

  TEST_CASE("signals: grace over gives up with the first signal's code") {
    CHECK(run_in_child([] {
            install_signal_handlers(1);
            raise(SIGTERM);
            for (;;) ::pause();
          }) == 128 + SIGTERM);
    CHECK(run_in_child([] {
            install_signal_handlers(1);
            raise(SIGALRM);  // without a stop before it means nothing
          }) == 0);
  }

  TEST_CASE("signals: the grace time can be set, also when the stop has come already, and ended") {
    CHECK(run_in_child([] {
            install_signal_handlers(1);
            set_grace(100);
            raise(SIGTERM);
            set_grace(200);
            const unsigned left = alarm(0);  // seconds until it would give up
            ::_exit(left > 100 && left <= 200 ? 0 : 1);
          }) == 0);
    CHECK(run_in_child([] {
            install_signal_handlers(1);
            raise(SIGTERM);
            end_grace();
            ::_exit(alarm(0) == 0 && stop_requested() ? 0 : 1);
          }) == 0);
    CHECK(run_in_child([] {
            install_signal_handlers(1);
            end_grace();
            raise(SIGTERM);
            if (alarm(0) != 0) ::_exit(1);
            raise(SIGTERM);  // the second one still gives up
          }) == 128 + SIGTERM);
  }

  TEST_CASE("signals: USR2 asks once for a checkpoint; HUP, PIPE and XFSZ are survived") {
    CHECK(run_in_child([] {
            install_signal_handlers();
            if (take_save_request()) ::_exit(1);
            raise(SIGUSR2);
            if (!take_save_request() || take_save_request() || stop_requested()) ::_exit(2);
            raise(SIGHUP);
            raise(SIGPIPE);
            raise(SIGXFSZ);
            if (stop_requested()) ::_exit(3);
          }) == 0);
  }
}
