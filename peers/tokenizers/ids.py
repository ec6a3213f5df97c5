"""Token ids by the Python package `tokenizers`, to compare with cipherlm's.

    python3 ids.py small > expected.json          what crates/model/tests/data/token_ids.json holds
    python3 ids.py lines TOKENIZER LINES > ids    one line of ids a line of text (TOKENIZER: .json or vocab.txt)

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


if __name__ == "__main__":
    small() if sys.argv[1] == "small" else lines(*sys.argv[2:4])
