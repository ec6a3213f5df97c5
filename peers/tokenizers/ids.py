"""Token ids by the Python package `tokenizers`, to compare with cipherlm's.

    python3 ids.py small > expected.json          what crates/model/tests/data/token_ids.json holds
    python3 ids.py lines TOKENIZER LINES > ids    one line of ids a line of text (TOKENIZER: .json or vocab.txt)
    python3 ids.py hashes WORDS FOLDER > hashes   what crates/model/tests/data/token_hashes.json holds: 2,000 lines made
                                                  of WORDS (token_words.json beside it), under the public tokenizers
                                                  found in FOLDER

`small` trains three tokenizers on the texts below and writes each as a tokenizer.json with the ids of every text:
a byte-level BPE with split digits and NFC, word pieces that lower, and a unigram model with a metaspace.
"""

import json
import sys

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "The cat sat on the mat; the cat's hat wasn't there. It's 12345 o'clock!",
    "Der Zug fährt um 7:45 Uhr über die Brücke nach Köln, größer als Straßburg.",
    "今日は東京へ行きました。明日も雨が降るでしょう。",
    "Мама мыла раму, а папа читал газету «Правда» №42.",
    "किताबें मेज़ पर हैं और बच्चे खेल रहे हैं।",
    "fn main() {\n\tlet x: Vec<u8> = vec![0x1f; 3]; // naïve\n    println!(\"{x:?}\");\n}\r\n",
    "🦀🦀 👩‍👩‍👧‍👦 e\u0301 \u00a0\u2003 ﬁ ① \u0000 \u200b end",
    "   leading, trailing   ",
    "",
]


def byte_level():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    t.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    t.train_from_iterator(
        TEXTS * 3, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, special_tokens=["<|im_end|>"])
    )
    return t


def word_pieces():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    t.train_from_iterator(TEXTS[:3] * 3, trainers.WordPieceTrainer(vocab_size=140, special_tokens=special))
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return t


def unigram():
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.NFKC()
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = decoders.Metaspace()
    t.train_from_iterator(
        TEXTS[:2] * 3, trainers.UnigramTrainer(vocab_size=120, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>")
    )
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return t


def small():
    out = []
    for name, build in [("byte_level", byte_level), ("word_pieces", word_pieces), ("unigram", unigram)]:
        t = build()
        cases = []
        for text in TEXTS:
            ids = t.encode(text).ids
            cases.append({"text": text, "ids": ids, "decoded": t.decode(ids, skip_special_tokens=False)})
        out.append({"name": name, "tokenizer": json.loads(t.to_str()), "cases": cases})
    json.dump(out, sys.stdout, ensure_ascii=False, separators=(",", ":"))


def lines(tokenizer, path):
    if tokenizer.endswith(".txt"):
        from tokenizers import BertWordPieceTokenizer

        t = BertWordPieceTokenizer(tokenizer, lowercase=True)
    else:
        t = Tokenizer.from_file(tokenizer)
        t.no_padding()
        t.no_truncation()
    for line in open(path, encoding="utf-8", newline="\n"):
        print(" ".join(map(str, t.encode(line.rstrip("\n")).ids)))


def made_lines(words, count):
    """Lines of a few languages, code, emoji and odd spaces, by a generator that the Rust test repeats."""
    state = 20261129
    out = []

    def below(n):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % n

    for _ in range(count):
        kind = words[below(len(words))]
        parts = []
        for _ in range(1 + below(14)):
            parts.append(kind["words"][below(len(kind["words"]))])
            # Now and then something from elsewhere, glued or apart.
            if below(5) == 0:
                other = words[below(len(words))]["words"]
                parts.append(other[below(len(other))])
            if below(6) == 0:
                parts.append(str(below(100000)))
            parts.append(kind["between"][below(len(kind["between"]))])
        out.append("".join(parts))
    return out


def fnv(rows):
    """FNV-1a of ids as four bytes each, a row ended by 0xffffffff."""
    state = 0xCBF29CE484222325
    for row in rows:
        for i in [*row, 0xFFFFFFFF]:
            for byte in i.to_bytes(4, "little"):
                state = (state ^ byte) * 0x100000001B3 % 2**64
    return f"{state:016x}"


def hashes(words_file, folder):
    import os

    words = json.load(open(words_file, encoding="utf-8"))
    text = made_lines(words, 2000)
    out = {"lines": len(text), "text": fnv([list(line.encode()) for line in text]), "tokenizers": {}}
    for place in ["minilm/tokenizer.json", "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "gpt2", "neox/tokenizer.json"]:
        path = os.path.join(folder, place)
        if not os.path.exists(path):
            continue
        if place == "gpt2":
            from tokenizers import ByteLevelBPETokenizer

            t = ByteLevelBPETokenizer(os.path.join(path, "vocab.json"), os.path.join(path, "merges.txt"))
        elif place.endswith(".gguf"):
            from transformers import AutoTokenizer

            t = AutoTokenizer.from_pretrained(os.path.dirname(path), gguf_file=os.path.basename(path)).backend_tokenizer
            # transformers leaves out what the file's field `tokenizer.ggml.pre` = smollm says: digits one by one.
            t.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
            )
        else:
            t = Tokenizer.from_file(path)
        t.no_padding()
        t.no_truncation()
        ids = [t.encode(line).ids for line in text]
        out["tokenizers"][place] = {"hash": fnv(ids), "ids": sum(map(len, ids))}
    json.dump(out, sys.stdout, indent=1)


if __name__ == "__main__":
    modes = {"small": small, "lines": lines, "hashes": hashes}
    modes[sys.argv[1]](*sys.argv[2:])
