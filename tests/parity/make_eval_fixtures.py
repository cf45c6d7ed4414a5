"""Makes tests/evaluate/harness: invented tasks in the forms of the Hugging Face hub, a tiny model that has learned a little of
them, and what lm-evaluation-harness 0.4.13 says of that model, document by document. Run by hand:
  python tests/parity/make_eval_fixtures.py COPPICE OUTPUT      (an environment with lm-eval==0.4.13, torch and transformers)
COPPICE is the program, which trains the model where OUTPUT has none, and exports it. Nothing is downloaded; no text is anybody else's.
"""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

DOCUMENTS = 50
SUBJECTS = ["world_colours", "field_botany"]
MAX_LENGTH = 160
COLOURS = ["red", "green", "blue", "black", "white", "yellow", "brown", "grey"]
THINGS = ["crow", "frog", "fox", "snow", "grass", "lake", "stone", "wheat", "moss", "coal", "swan", "plum", "birch", "rust", "Möwe", "ёж"]
NAMES = ["Mia", "Tom", "Ada", "Ben", "Lea", "Kai"]
FRUITS = ["apples", "pears", "plums", "nuts"]


def colour_of(thing):
    return COLOURS[THINGS.index(thing) * 3 % len(COLOURS)]


def choices_with(rng, right, others, count):
    picked = rng.sample([one for one in others if one != right], count - 1) + [right]
    rng.shuffle(picked)
    return picked, picked.index(right)


def sum_document(rng):
    name, fruit, a, b = rng.choice(NAMES), rng.choice(FRUITS), rng.randint(1, 9), rng.randint(1, 9)
    total = f"{a + b}" if rng.random() < 0.8 else f"{a + b},000"
    question = f"{name} has {a} {fruit} and finds {b} more. How many {fruit} are there?"
    return {"question": question, "answer": f"{name} has {a} + {b} = {total} {fruit}.\n#### {total}"}


def arc_document(rng, number, wrong=0.0):
    """`wrong`: the share of answers that the model has learned otherwise."""
    thing = rng.choice(THINGS)
    count = rng.choice([4, 4, 4, 3, 5])
    texts, right = choices_with(rng, colour_of(thing), COLOURS, count)
    if rng.random() < wrong:
        right = rng.randrange(count)
    labels = list("ABCDE" if rng.random() < 0.7 else "12345")[:count]
    return {"id": f"invented_{number}", "question": f"What colour is the {thing}?", "choices": {"text": texts, "label": labels}, "answerKey": labels[right]}


def hellaswag_document(rng, number):
    thing, name = rng.choice(THINGS), rng.choice(NAMES)
    endings, right = choices_with(rng, colour_of(thing), COLOURS, 4)
    marks = rng.choice(["", "[step] ", "[header] "])
    return {
        "ind": number,
        "activity_label": rng.choice(["Painting", "Walking a dog", "Ölen"]),
        "ctx_a": f"{marks}{name} looks at the {thing}." + rng.choice(["", " [title] What it is", "  "]),
        "ctx_b": rng.choice(["the colour", "ÜBER it, the Colour", "it"]),
        "endings": [f"is {one}.{rng.choice(['', ' [substeps] So be it.'])}" for one in endings],
        "label": str(right),
    }


def winogrande_document(rng):
    first, second = rng.sample(THINGS, 2)
    right = rng.randint(1, 2)
    return {"sentence": f"The {first} stands by the {second}, and the _ is {colour_of([first, second][right - 1])}. ", "option1": first, "option2": second, "answer": str(right)}


def piqa_document(rng):
    thing = rng.choice(THINGS)
    wrong = rng.choice([one for one in COLOURS if one != colour_of(thing)])
    label = rng.randint(0, 1)
    ends = [rng.choice(["", ", and little of it", ", if any"]) for _ in range(2)]
    solutions = [f"use {wrong} paint{ends[0]}", f"use {colour_of(thing)} paint{ends[1]}"]
    return {"goal": f"To paint the {thing}", "sol1": solutions[1 - label], "sol2": solutions[label], "label": label}


def sciq_document(rng):
    thing = rng.choice(THINGS)
    wrong = rng.sample([one for one in COLOURS if one != colour_of(thing)], 3)
    support = rng.choice(["", f"  \n The {thing} is {colour_of(thing)}.", f"The {rng.choice(THINGS)} is near."])
    return {
        "question": f"The {thing} has which colour?", "support": support, "correct_answer": colour_of(thing),
        "distractor1": wrong[0], "distractor2": wrong[1], "distractor3": wrong[2],
    }  # fmt: skip


def mmlu_document(rng, subject):
    thing = rng.choice(THINGS)
    choices, right = choices_with(rng, colour_of(thing), COLOURS, 4)
    return {"question": f" What colour is the {thing}?{rng.choice(['', ' '])}", "subject": subject, "choices": choices, "answer": right}


def lambada_document(rng, wrong=0.0):
    thing, other = rng.sample(THINGS, 2)
    last = rng.choice([*COLOURS, "blueish", "soft."]) if rng.random() < wrong else colour_of(thing)
    return {"text": f"{rng.choice(NAMES)} says the {other} is {colour_of(other)}. The {thing} is {last}"}


def page_document(rng, number):
    sentences = [f"The {thing} is {colour_of(thing)}." for thing in rng.choices(THINGS, k=rng.choice([1, 5, 30, 60, 90]))]
    return {"text": rng.choice(["", " ", "\n"]) + rng.choice([" ", "\n\n", "  "]).join(sentences) + f" Page {number}\u00a0of many."}


def write_lines(path, documents):
    """Letters beyond ASCII in both ways of writing them."""
    lines = [json.dumps(one, ensure_ascii=number % 2 == 0) + "\n" for number, one in enumerate(documents)]
    path.write_text("".join(lines), encoding="utf-8")


def write_tasks(folder):
    rng = random.Random(20)
    files = {
        "arc_easy": [arc_document(rng, i, wrong=0.5) for i in range(DOCUMENTS)],
        "arc_train": [arc_document(rng, 1000 + i) for i in range(30)],
        "hellaswag": [hellaswag_document(rng, i) for i in range(DOCUMENTS)],
        "winogrande": [winogrande_document(rng) for _ in range(DOCUMENTS)],
        "winogrande_train": [winogrande_document(rng) for _ in range(12)],
        "piqa": [piqa_document(rng) for _ in range(DOCUMENTS)],
        "sciq": [sciq_document(rng) for _ in range(DOCUMENTS)],
        "mmlu": [mmlu_document(rng, SUBJECTS[i * 2 // DOCUMENTS]) for i in range(DOCUMENTS)],
        "mmlu_dev": [mmlu_document(rng, SUBJECTS[i % 2]) for i in range(10)],
        "lambada_openai": [lambada_document(rng, wrong=0.5) for _ in range(DOCUMENTS)],
        "gsm8k": [sum_document(rng) for _ in range(DOCUMENTS)],
        "gsm8k_train": [sum_document(rng) for _ in range(40)],
        "pages": [page_document(rng, i) for i in range(DOCUMENTS)],
    }
    for name, documents in files.items():
        write_lines(folder / f"{name}.jsonl", documents)
    return files


RECIPE = f"""
name = "invented"
seed = 3
threads = 2
[data]
heldout_share = 0.02
[[data.domain]]
name = "invented"
path = "corpus.jsonl"
[tokenizer]
vocab_size = 384
[model.source]
hidden_size = 48
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
intermediate_size = 128
max_position_embeddings = {MAX_LENGTH}
[[stage]]
name = "dense"
kind = "train"
model = "source"
tokens = 5e5
seq_len = 128
batch_tokens = 1024
[[stage]]
name = "release"
kind = "export"
from = "dense"
formats = ["hf"]
dtype = "bf16"
"""


def training_documents():
    rng = random.Random(21)
    for number in range(3000):
        kind = rng.randrange(4)
        if kind == 0:
            one = sum_document(rng)
            yield f"Question: {one['question']}\nAnswer: {one['answer']}\n\n"
        elif kind == 1:
            one = arc_document(rng, number)
            yield f"Question: {one['question']}\nAnswer: {one['choices']['text'][one['choices']['label'].index(one['answerKey'])]}\n\n"
        elif kind == 2:
            yield lambada_document(rng)["text"] + ".\n"
        else:
            yield page_document(rng, number)["text"]


def train_model(coppice, work):
    """The exported model."""
    write_lines(work / "corpus.jsonl", [{"id": f"t{i}", "text": text} for i, text in enumerate(training_documents())])
    (work / "recipe.toml").write_text(RECIPE)
    subprocess.run([coppice, "run", "recipe.toml", "--out", "run"], cwd=work, check=True)
    return work / "run" / "release" / "hf"


def export_model(coppice, model, work):
    """With all the files that transformers wants."""
    subprocess.run([coppice, "export", model, "-o", work / "exported", "--format", "hf"], check=True)
    return work / "exported"


def harness_tasks(folder):
    """Name -> (the harness' own definition, changes to it, examples)."""
    data = lambda **files: {"data_files": {split: str(folder / f"{name}.jsonl") for split, name in files.items()}}  # noqa: E731
    plain = {"training_split": None, "validation_split": None, "test_split": None, "fewshot_split": None, "dataset_name": None}
    mmlu = lambda subject: ("mmlu/default/_default_template_yaml", {  # noqa: E731
        "test_split": "test", "fewshot_split": "dev", "dataset_kwargs": data(test="mmlu", dev="mmlu_dev"), "task_alias": subject,
        "description": f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"}, 2)  # fmt: skip
    short = {"until": ["Question:", "</s>", "<|im_end|>"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 40}
    return {
        "arc_easy": ("arc/arc_easy", {"test_split": "test", "dataset_kwargs": data(test="arc_easy")}, 0),
        "arc_easy_3shot": ("arc/arc_easy", {"test_split": "test", "training_split": "train", "dataset_kwargs": data(test="arc_easy", train="arc_train")}, 3),
        "hellaswag": ("hellaswag/hellaswag", {"validation_split": "validation", "dataset_kwargs": data(validation="hellaswag")}, 0),
        "winogrande": ("winogrande/default", {"validation_split": "validation", "dataset_kwargs": data(validation="winogrande")}, 0),
        "winogrande_2shot": ("winogrande/default", {"validation_split": "validation", "training_split": "train", "dataset_kwargs": data(validation="winogrande", train="winogrande_train")}, 2),
        "piqa": ("piqa/piqa", {"validation_split": "validation", "dataset_kwargs": data(validation="piqa")}, 0),
        "sciq": ("sciq/sciq", {"test_split": "test", "dataset_kwargs": data(test="sciq")}, 0),
        **{f"mmlu_{subject}": mmlu(subject) for subject in SUBJECTS},
        "lambada_openai": ("lambada/lambada_openai", {"test_split": "test", "dataset_kwargs": data(test="lambada_openai")}, 0),
        "gsm8k": ("gsm8k/gsm8k", {"test_split": "test", "dataset_kwargs": data(test="gsm8k"), "generation_kwargs": short}, 0),
        "gsm8k_5shot": ("gsm8k/gsm8k", {"test_split": "test", "fewshot_split": "train", "dataset_kwargs": data(test="gsm8k", train="gsm8k_train"), "generation_kwargs": short}, 5),
        "pages": (None, {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}", "test_split": "test", "dataset_kwargs": data(test="pages")}, 0),
    }, plain  # fmt: skip


def run_harness(model, folder, cache):
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=str(cache), DISABLE_MULTIPROC="1", TOKENIZERS_PARALLELISM="false")
    import lm_eval.tasks
    from lm_eval.api.group import Group
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.config.group import AggMetricConfig
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks._yaml_loader import load_yaml

    tasks, plain = harness_tasks(folder)
    tasks_folder = pathlib.Path(lm_eval.tasks.__file__).parent
    loaded = {}
    for name, (definition, changes, examples) in tasks.items():
        config = {}
        if definition:
            path = tasks_folder / definition
            config = load_yaml(path if path.exists() else path.with_name(path.name + ".yaml"), resolve_func=True)
        config.update(plain)
        config.update({"task": name, "dataset_path": "json", "num_fewshot": examples, **changes})
        loaded[name] = ConfigurableTask(config=config)
        loaded[name].set_fewshot_seed(1234)
    mmlu = Group("mmlu", aggregate_metric_list=[AggMetricConfig(metric="acc")], metadata={"version": 2})
    for subject in SUBJECTS:  # both in one file
        task = loaded[f"mmlu_{subject}"]
        for split in ["test", "dev"]:
            task.dataset[split] = task.dataset[split].filter(lambda one, subject=subject: one["subject"] == subject)
        task.sampler.replace_df(list(task.dataset["dev"]))
        task.task_docs = task.eval_docs
        mmlu.add(task)
    lm = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=1, softmax_dtype="float32")
    assert lm.max_length == MAX_LENGTH
    return evaluate(lm=lm, task_dict={"tasks": loaded, "groups": {"mmlu": mmlu}}, bootstrap_iters=100000, log_samples=True)


def plain_answer(answer):
    return [float(answer[0]), bool(answer[1])] if isinstance(answer, tuple) else answer if isinstance(answer, str) else float(answer)


def write_results(results, path):
    """A line a document and filter: its answers, its filtered text, its metrics."""
    lines = {}
    for name, samples in results["samples"].items():
        lines[name] = []
        for sample in sorted(samples, key=lambda one: (one["filter"], one["doc_id"])):
            line = {"doc_id": sample["doc_id"], "filter": sample["filter"], "resps": [plain_answer(one[0]) for one in sample["resps"]]}
            line["context"] = sample["arguments"][0][0] if sample["doc_id"] < 3 else None
            if isinstance(sample["filtered_resps"][0], str):
                line["filtered"] = sample["filtered_resps"][0]
            line["metrics"] = {one: sample[one] for one in sample["metrics"]}
            lines[name].append({key: value for key, value in line.items() if value is not None})
    kept = {name: {key: value for key, value in row.items() if "," in key} for name, row in results["results"].items()}
    text = json.dumps({"lm_eval": "0.4.13", "results": kept, "group_subtasks": results["group_subtasks"]}, indent=1) + "\n"
    path.with_name("results.json").write_text(text)
    path.write_text("".join(json.dumps({"task": name, **line}, ensure_ascii=False) + "\n" for name, rows in lines.items() for line in rows), encoding="utf-8")


def main():
    coppice, output = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    output.mkdir(parents=True, exist_ok=True)
    write_tasks(output)
    with tempfile.TemporaryDirectory() as scratch:
        work = pathlib.Path(scratch)
        if not (output / "model").exists():
            model = train_model(coppice, work)
            (output / "model").mkdir()
            for name in ["config.json", "model.safetensors", "tokenizer.model"]:
                shutil.copyfile(model / name, output / "model" / name)
        results = run_harness(export_model(coppice, output / "model", work), output, work / "cache")
    write_results(results, output / "samples.jsonl")


if __name__ == "__main__":
    main()
