"""Seeded text in five scripts: lines to train tokenizers on, and 10,000 strings made to find differences between encoders."""

import random

LATIN = "the of and to in is that for with as on are this be by from an or which model layer width mask token learn small large run stage".split()
SYLLABLES = {
    "latin": ["ta", "re", "mi", "lo", "sun", "der", "wick", "ing", "ex", "qu", "é", "ü", "ñ", "ß", "ost", "a", "I", "Th", "'s", "-"],
    "cyrillic_greek": ["ка", "ло", "ми", "на", "ст", "ви", "щ", "Я", "ё", "στ", "ο", "και", "Ελ", "λη", "νικ", "ά", "ώ", "ϊ"],
    "arabic": ["سل", "ام", "مر", "كت", "اب", "ال", "ة", "نَ", "مُ", "لّ", "لا", "ـ", "؟", "١٢", "هـ"],
    "chinese_korean": ["中", "文", "模", "型", "的", "学", "习", "小", "。", "，", "字", "한", "글", "모", "델", "을", "ᄒ", "ᅡ", "ᆫ", "𠀀", "𪛖"],
    "emoji_combining": ["😀", "👍🏽", "👩‍👩‍👧", "🇰🇷", "🇩🇪", "❤️", "e\u0301", "a\u0308\u0323", "ﬁ", "Ａ", "①", "ｶﾞ", "\u200d", "\ufe0f", "ñ", "n\u0303", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"],
}
SCRIPTS = list(SYLLABLES)
SPECIALS = ["<s>", "</s>", "<unk>", "<pad>", "<0x0A>", "<0xE2>", "<|im_start|>", "[INST]"]
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\u2028", "\x0b", "\x0c", "\x85"]


def word(rng, script):
    if script == "latin" and rng.random() < 0.5:
        return rng.choice(LATIN)
    return "".join(rng.choice(SYLLABLES[script]) for _ in range(rng.randint(1, 4)))


def phrase(rng, script, max_words):
    pieces = []
    for _ in range(rng.randint(1, max_words)):
        kind = rng.random()
        if kind < 0.80:
            pieces.append(word(rng, script))
        elif kind < 0.88:
            pieces.append(str(rng.randint(0, 10 ** rng.randint(1, 9))))
        elif kind < 0.94:
            pieces.append(rng.choice(["(", ")", "{", "};", "==", "::", "...", ",", ".", "!", "\"", "<div>", "x[i]", "--"]))
        else:
            pieces.append(word(rng, rng.choice(SCRIPTS)))
    joiner = "" if script == "chinese_korean" and rng.random() < 0.5 else " "
    return joiner.join(pieces)


def training_lines():
    """Words repeat by a long-tailed draw, so that merges of several levels pay."""
    rng = random.Random(1)
    stock = {script: [word(rng, script) for _ in range(800)] for script in SCRIPTS}
    lines = []
    for _ in range(6000):
        script = rng.choices(SCRIPTS, [8, 3, 2, 2, 1])[0]
        words = [stock[script][int(len(stock[script]) * rng.random() ** 3)] for _ in range(rng.randint(3, 14))]
        if rng.random() < 0.3:
            words.insert(rng.randrange(len(words)), phrase(rng, script, 4))
        if rng.random() < 0.1:
            words.insert(0, rng.choice(["  ", "    ", "\t", "       "]))
        lines.append(" ".join(words))
    return [line for line in lines if "\n" not in line and "\r" not in line]


def spaced(rng):
    return "".join(rng.choice([" " * rng.randint(1, 9), rng.choice(SPACES), word(rng, rng.choice(SCRIPTS))]) for _ in range(rng.randint(1, 12)))


def mixed(rng, extras):
    return "".join(rng.choice([rng.choice(extras), word(rng, rng.choice(SCRIPTS)), " "]) for _ in range(rng.randint(1, 12)))


def code_point(rng):
    while True:
        point = rng.randint(0, 0x10FFFF)
        if not 0xD800 <= point <= 0xDFFF:
            return chr(point)


def task_items():
    """Multiple choice: contexts of every length, empty and white ones, white space at their end, choices that bring their own."""
    rng = random.Random(3)
    items = []
    for number in range(60):
        script = SCRIPTS[number % len(SCRIPTS)]
        context = "" if number % 12 == 11 else phrase(rng, script, rng.choice([3, 20, 150]))
        item = {"context": context, "choices": [phrase(rng, script, 6) for _ in range(rng.randint(2, 5))], "answer": 0}
        if number % 5 == 1:
            item["context"] += rng.choice([" ", "  ", "\n", "\u3000", " \t\u00a0"])
            item["delimiter"] = ""
        if number % 5 == 2:
            item["choices"] = [" " + choice for choice in item["choices"]]
            item["delimiter"] = ""
        if number % 5 == 3:
            item["delimiter"] = rng.choice(["\n", " \u2192 ", ": "])
        items.append(item)
    items.append({"context": " \n", "choices": ["of the", "mask"], "answer": 1})
    return items


def test_strings():
    rng = random.Random(2)
    strings = [phrase(rng, script, rng.choice([1, 3, 10, 60])) for script in SCRIPTS for _ in range(1200)]
    strings += [mixed(rng, SPECIALS) for _ in range(500)]
    strings += [mixed(rng, ["▁", "▁▁", "▁ ▁"]) for _ in range(500)]
    strings += [spaced(rng) for _ in range(600)]
    strings += [mixed(rng, ["\x00", "\x01", "\x1b", "\x7f", "\ufeff", "\ufffe", "\uffff", "\U0010ffff", "\ufffd"]) for _ in range(400)]
    strings += ["".join(rng.choice("0123456789.,٣৪五") for _ in range(rng.randint(1, 40))) for _ in range(300)]
    strings += [bytes(rng.randrange(256) for _ in range(rng.randint(1, 60))).decode("utf-8", errors="replace") for _ in range(500)]
    strings += [rng.choice(["a", "ta", "of", "的", "😀", "▁", "\n", "s>", "é", "st"]) * rng.randint(1, 120) for _ in range(400)]
    strings += ["".join(code_point(rng) for _ in range(rng.randint(1, 30))) for _ in range(500)]
    strings += [" " * length for length in range(1, 300)]
    strings += [""]
    assert len(strings) == 10_000, len(strings)
    return strings
