"""The texts of the fidelity test: deterministic, made to reach every odd corner of a tokenizer.

`make(kjv, glosses, count)` returns a list of (group, text); `count(text)` must tell how many
tokens a text has before any truncation, special tokens included.
"""

import random
import unicodedata

SEED = 20240623

SCRIPTS = {
    "cjk": [
        "春眠不覺曉，處處聞啼鳥。", "耶和華是我的牧者，我必不致缺乏。", "人工智能正在改变世界。",
        "吾輩は猫である。名前はまだ無い。", "東京タワーの高さは333メートルです。", "カタカナとひらがなと漢字",
        "请问，最近的地铁站在哪里？", "㐀㐁㐂 𠀀𠀁𠀂 豈更車", "中文English混排text测试", "ﾊﾝｶｸ ｶﾀｶﾅ", "「引用」、（括号）…",
    ],
    "korean": ["안녕하세요, 만나서 반갑습니다.", "여호와는 나의 목자시니 내게 부족함이 없으리로다", "서울은 대한민국의 수도이다", "가나다라마바사"],
    "thai": ["พระเจ้าทรงเป็นผู้เลี้ยงดูข้าพเจ้า", "สวัสดีครับ ยินดีต้อนรับสู่ประเทศไทย", "กรุงเทพมหานคร", "น้ำแข็ง"],
    "arabic": ["الرب راعي فلا يعوزني شيء", "مَرْحَبًا بِكُم فِي الْمَدِينَة", "القاهرة عاصمة مصر، وعدد سكانها ٢٠ مليون", "كتاب؟ نعم!"],
    "hebrew": ["יְהוָה רֹעִי לֹא אֶחְסָר", "ירושלים היא עיר בירה", "שלום עולם", "בראשית ברא אלהים את השמים ואת הארץ"],
    "devanagari": ["यहोवा मेरा चरवाहा है", "भारत एक विशाल देश है।", "क्षत्रिय ज्ञान श्रृंखला", "नमस्ते दुनिया १२३"],
    "other-scripts": [
        "Господь — Пастырь мой; я ни в чем не буду нуждаться", "Ёжик в тумане", "Ο Κύριος με ποιμαίνει· ΟΔΥΣΣΕΥΣ",
        "Chúa là Đấng chăn giữ tôi", "İstanbul'da ılık bir IŞIK", "Größe, Straße, STRASSE, ẞ", "თბილისი საქართველოს დედაქალაქია",
        "አዲስ አበባ", "தமிழ் ஒரு செம்மொழி", "বাংলা ভাষা", "Երևան", "ᚠᚢᚦᚨᚱᚲ", "ພາສາລາວ", "မြန်မာစာ", "ភាសាខ្មែរ", "ᎣᏏᏲ", "𐍅𐌰𐌹𐌻𐌰", "Żółć, łódź, ćma",
    ],
}

EMOJI = ["😀", "😂", "🙏", "❤️", "❤", "☺︎", "☺️", "🔥", "👍", "👍🏽", "👩🏿‍🚀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🏴‍☠️", "🇬🇧", "🇯🇵🇰🇷", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "1️⃣", "#️⃣", "⌚", "🧑🏻‍❤️‍💋‍🧑🏿", "🫠", "™️", "ℹ️", "🀄", "♟️", "🤷‍♀️", "👁️‍🗨️"]

SPACES = [" ", "\t", "\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u00a0", "\u1680", "\u2002", "\u2003", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"]

ZERO_WIDTH = ["\u200b", "\u200c", "\u200d", "\u200e", "\u200f", "\u2060", "\u2061", "\ufeff", "\u00ad", "\u180e", "\u202a", "\u202e", "\u2066", "\u2069"]

CONTROLS = [chr(c) for c in range(0x20)] + [chr(c) for c in range(0x7F, 0xA0)] + ZERO_WIDTH + [
    "\ufffd", "\ufffc", "\ufff9", "\ufdd0", "\uffff", "\ue000", "\U000f0000", "\U0010ffff", "\U000e0001", "\u0378", "\ufe0f"]

MIXED = [
    "3.14159265358979", "1,234,567.89", "-0.0 +1e-10 6.022e23", "$1,000.00 €5,50 £3 ¥700 ₹90", "50% off!!!", "10:45 PM, 2024-02-29T23:59:60Z",
    "+44 (0)20 7946 0958", "192.168.0.1:8080", "::1 fe80::1%eth0", "0xDEADBEEF 0b1010 0o777", "½ ¾ ² ³ ⅷ ① Ⅻ", "٣٤٥ ๓๔๕ १२३",
    "https://example.org/a/b?x=1&y=%20#frag", "mailto:someone+tag@mail.example.com", "C:\\Windows\\System32\\drivers\\etc", "/usr/share/doc/a-b_c.d/README.md",
    "fn main() { println!(\"{}\", 1 << 3); }", "SELECT * FROM t WHERE a <> 'b' -- c", "for (int i=0;i<n;++i) a[i]^=b[i]&0xff;", "def f(x: int) -> str: return f\"{x!r:>10}\"",
    "<div class=\"x\">&nbsp;&lt;p&gt;</div>", "{\"key\": [1, null, true, \"\\u0041\"]}", "\\frac{1}{2}\\sum_{i=0}^{n} x_i^2", "a+b=c; a-b!=c; a*b/c%d", "^$.|?*+()[]{}", "~`!@#$%^&*()_+-=[]{}|;':\",./<>?",
    "don't can't won't it's o'clock 'tis", "state-of-the-art re-use e-mail", "“curly” ‘quotes’ — dashes – and … dots", "camelCaseIdentifier snake_case_identifier SCREAMING_CASE kebab-case",
    "Hello мир 世界 שלום नमस्ते 🌍", "The café's naïve façade über Zürich", "the Ｆｕｌｌｗｉｄｔｈ ＴＥＸＴ １２３", "ﬁne ﬂow ﬃx ŉ ǆ Ǆ", "H₂O CO₂ x² E=mc²", "∀x∈ℝ: ∃y≥x ∧ y≠∞ → ∑∫√", "♠♥♦♣ ★☆ ✓✗ ←↑→↓ ■□▲", "🅰️ ⓐ Ⓩ ㎏ ㍿ ℃ №",
    "ALL CAPS SHOUTING", "aAbBcC", "!!!???...", "....................", "-----", "________", "a b c d e f g h i j k l m n o p q r s t u v w x y z",
]

LOOKALIKES = ["[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "[cls]", "[Sep]", "[ CLS ]", "[CLS", "MASK]", "[[MASK]]", "[unused0]", "[unused99]", "##ing", "##", "[CLS][SEP]", "<s>", "</s>", "<pad>", "<|endoftext|>", "ＣＬＳ", "［CLS］"]


def words_of(kjv, rng, n):
    """n words that follow one another in the Bible, from a random verse on."""
    at, words = rng.randrange(len(kjv)), []
    while len(words) < n:
        words += kjv[at % len(kjv)].split()
        at += 1
    return words[:n]


def exactly(kjv, rng, count, tokens):
    """A text of exactly so many tokens, special tokens included."""
    words = []
    for word in words_of(kjv, rng, tokens):
        if count(" ".join([*words, word])) > tokens:
            break
        words.append(word)
    fillers = ["day", "lord", "house", "king", "water", "light", "son", "hand"]
    while (have := count(" ".join(words))) < tokens:
        words.append(fillers[(have + len(words)) % len(fillers)])
    text = " ".join(words)
    assert count(text) == tokens, (tokens, count(text))
    return text


def short(kjv, rng):
    fixed = ["a", "I", ".", "the", "God", "Jesus wept.", "hello world", "The Lord is my shepherd; I shall not want.", "king", "KING", "King", "queen", "x", "42", "?", "apple pie", "This is an example sentence", "Each sentence is converted"]
    yield from fixed
    for _ in range(200):
        verse = rng.choice(kjv).split()
        n = rng.randint(1, 9)
        start = rng.randrange(max(1, len(verse) - n))
        yield " ".join(verse[start:start + n])
    for _ in range(40):
        yield rng.choice([str.upper, str.title, str.swapcase])(" ".join(words_of(kjv, rng, rng.randint(2, 8))))


def whitespace(kjv, rng):
    yield from SPACES
    yield from ["   ", "\t\t\n \n", "\u00a0\u3000 ", "\n" * 300, " " * 2000, "\u200b\u200b", "\u200b \ufeff", "".join(SPACES)]
    for space in SPACES:
        yield space.join(words_of(kjv, rng, 6))
        yield space + " ".join(words_of(kjv, rng, 3)) + space * 2


def script(sentences, rng, n):
    yield from sentences
    for _ in range(n):
        yield rng.choice(["", " ", " / ", "\n"]).join(rng.choice(sentences) for _ in range(rng.randint(2, 14)))


def emoji(kjv, rng):
    yield from EMOJI
    for _ in range(50):
        mixed = words_of(kjv, rng, rng.randint(1, 12)) + [rng.choice(EMOJI) for _ in range(rng.randint(1, 6))]
        rng.shuffle(mixed)
        yield rng.choice(["", " "]).join(mixed)
    yield "".join(EMOJI * 8)


def marks(kjv, rng):
    accented = ["Crème brûlée à la façon d'été", "Ångström, señor, Łódź, Dvořák", "Việt Nam, Đà Nẵng, phở", "ḱṷṓn ǵʰostis", "coöperate, naïve, résumé", "한국어 텍스트", "が ぎ ぐ プ", "क़ ख़ ग़", "שָׁלוֹם", "ÅÅ ﬁ Ω"]
    for text in accented:
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            yield unicodedata.normalize(form, text)
    stack = [chr(c) for c in range(0x300, 0x370)] + ["\u20d0", "\u20dd", "\u1dc0", "\ufe20", "\u0489", "\u093c", "\u0e49", "\u064b", "\u05b0"]
    for _ in range(30):
        dense = rng.randint(1, 12)
        yield "".join(c + "".join(rng.choice(stack) for _ in range(rng.randint(0, dense))) for c in " ".join(words_of(kjv, rng, rng.randint(1, 10))))
    yield from ["\u0301", "\u0301\u0302\u0303", " \u0308 a", "a" + "\u0300" * 500]


def controls(kjv, rng):
    for c in CONTROLS:
        yield f"in the{c} begin{c}ning"
    yield from ["\x00", "\x00\x01\x02", "\ufffd", "\x7f", "\ufffd" * 50, "".join(CONTROLS)]
    for _ in range(30):
        text = list(" ".join(words_of(kjv, rng, rng.randint(3, 30))))
        for _ in range(rng.randint(1, 20)):
            text.insert(rng.randrange(len(text)), rng.choice(CONTROLS))
        yield "".join(text)


def long_words(rng):
    for n in (50, 99, 100, 101, 102, 199, 200, 201, 255, 256, 257, 512, 1000, 1001, 4096, 10_000):
        yield "a" * n
        yield "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(n))
        yield "in the " + "".join(rng.choice("etaoinshrdlu") for _ in range(n)) + " beginning"
    for n in (99, 100, 101, 1000):
        yield "é" * n
        yield "ж" * n
        yield "漢" * n
        yield "1" * n
        yield "." * n
    yield "antidisestablishmentarianism " * 40
    yield "pneumonoultramicroscopicsilicovolcanoconiosis" * 2
    yield "donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
    yield "a-" * 5000
    yield "mixed" + "x" * 120 + " then normal words follow here"


def mixed(kjv, rng):
    yield from MIXED
    parts = MIXED + sum(SCRIPTS.values(), [])
    for _ in range(70):
        yield " ".join(rng.choice(parts) if rng.random() < 0.6 else " ".join(words_of(kjv, rng, rng.randint(1, 6))) for _ in range(rng.randint(2, 12)))


def lookalikes(kjv, rng):
    yield from LOOKALIKES
    for token in LOOKALIKES:
        words = words_of(kjv, rng, rng.randint(2, 12))
        words.insert(rng.randrange(len(words) + 1), token)
        yield " ".join(words)
        yield token.join(words_of(kjv, rng, 3))
    yield "[MASK] " * 300
    yield "[PAD]" * 20


def passages(kjv, rng, n):
    """n texts of 3 to 250 words, short ones as likely as long ones on a logarithmic scale."""
    for _ in range(n):
        yield " ".join(words_of(kjv, rng, round(3 * (250 / 3) ** rng.random())))


def gloss_runs(glosses, rng, n):
    for i in range(n):
        runs = 1 if i % 2 else rng.randint(2, 20)
        yield "; ".join(rng.choice(glosses) for _ in range(runs))


def make(kjv, glosses, count):
    """All texts, none twice, as (group, text), shuffled."""
    rng = random.Random(SEED)
    groups = {"empty": [""], "whitespace": whitespace(kjv, rng), "short": short(kjv, rng)}
    for n, copies in ((255, 30), (256, 30), (257, 30), (600, 30)):
        groups[f"tokens-{n}"] = (exactly(kjv, rng, count, n) for _ in range(copies))
    groups["tokens-each"] = (exactly(kjv, rng, count, n) for n in range(3, 255))
    for name, sentences in SCRIPTS.items():
        groups[name] = script(sentences, rng, 40 if name == "cjk" else 16)
    groups |= {
        "emoji": emoji(kjv, rng), "marks": marks(kjv, rng), "controls": controls(kjv, rng), "long-words": long_words(rng),
        "mixed-kinds": mixed(kjv, rng), "lookalikes": lookalikes(kjv, rng),
        "passages": passages(kjv, rng, 440), "glosses": gloss_runs(glosses, rng, 300),
    }
    seen, rows = set(), []
    for group, texts in groups.items():
        for text in texts:
            text.encode()
            if text not in seen:
                seen.add(text)
                rows.append((group, text))
    rng.shuffle(rows)
    return rows
