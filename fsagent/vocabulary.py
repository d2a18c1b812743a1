"""Closed lists of English words that statements and plain-English requests are read with. Data, no logic.

They are closed on purpose: a word that is in no list is never guessed at.
"""

from __future__ import annotations


def word_set(text: str) -> frozenset[str]:
    """The words in ``text``, as a set."""
    return frozenset(text.split())


# What the owner has one of: the keys under which a personal statement is known wherever it stands in the soul.
PERSONAL = word_set("name nickname home birthday email phone address age job employer language") | {"time zone"}

# The last word of something that has one value: "the wifi password", "my dog's name".
ATTRIBUTES = word_set(
    "account address age birthday code color email iban id key language name number password phone pin size username"
)

# Keys that mean another key.
KEY_ALIASES = {
    alias: key
    for key, aliases in {
        "address": ("home address", "street address"),
        "birthday": ("birth date", "birthdate", "birth day", "birthday date", "birthday place"),
        "email": ("e-mail", "mail", "email address", "e-mail address", "mail address"),
        "home": ("city", "home city", "home place", "residence", "residence place"),
        "job": ("occupation", "profession"),
        "nickname": ("nick", "nick name"),
        "phone": ("phone number", "telephone", "telephone number", "mobile", "mobile number", "mobile phone"),
        "time zone": ("timezone",),
    }.items()
    for alias in aliases
}

SPELLING = {"colour": "color", "favourite": "favorite", "neighbour": "neighbor"}

# "What do you know about …" that means the owner.
OWNER_WORDS = word_set("me myself i owner user")

# Base form → third person: the verbs that "I …" may be turned with.
VERBS = {
    verb: verb + "s"
    for verb in word_set(
        """
        believe bake buy code collect come commute cook dislike drink drive earn eat enjoy feel follow get hate hope
        keep know learn like live love make mean need own paint pay play prefer read rent run sell sing sleep speak
        start support swim take think travel trust use wake walk want wear work write
        """
    )
} | {
    "am": "is",
    "carry": "carries",
    "do": "does",
    "don't": "doesn't",
    "finish": "finishes",
    "fly": "flies",
    "go": "goes",
    "have": "has",
    "haven't": "hasn't",
    "study": "studies",
    "teach": "teaches",
    "watch": "watches",
    "wish": "wishes",
}
# Third person → the form that goes with "you".
SECOND_PERSON = {third: base for base, third in VERBS.items()} | {
    "is": "are",
    "isn't": "aren't",
    "was": "were",
    "wasn't": "weren't",
}
UNCHANGED_VERBS = word_set(
    """
    can can't cannot could did didn't had may might moved must should shouldn't was wasn't will won't would
    """
)
ADVERBS = word_set("also always currently mostly never now often only really sometimes still usually")

# Words that no subject of a statement begins with, and words that no subject holds.
NO_SUBJECT = word_set(
    """
    and because but everyone everything he here how i if it let nobody nothing one or owner she so somebody something
    that there these they this those user we what when where which who whom why you
    """
)
NOT_IN_SUBJECT = word_set(
    "are because he i if is know knows not said says she that they think thinks we when which who"
)

# Words without a meaning of their own, when facts are searched.
SMALL_WORDS = word_set("a about an and are at in is my of on our owner s the to user your")

# Words that follow "I am" or "my name is" and are no names, with a capital letter or without.
NOT_NAMES = word_set(
    """
    african american asian atheist australian austrian belgian brazilian british buddhist bulgarian canadian catholic
    chinese christian croatian czech danish dutch egyptian english estonian european finnish french german greek hindu
    hungarian icelandic indian iranian irish israeli italian japanese jewish korean latvian lithuanian mexican muslim
    norwegian pakistani polish portuguese romanian russian scottish serbian slovak spanish swedish swiss thai turkish
    ukrainian vietnamese welsh

    afraid alive alone angry asleep available awake away back bad better blind bored broke busy cold confused curious
    dead deaf difficult disappointed divorced done early engaged excited famous fine free funny glad good great happy
    hard here home hot hungry ill important irrelevant late left long lost lucky mad married missing misspelled new none
    off offline ok okay old online out pregnant private proud rare ready retired right sad safe secret serious short
    sick single sorry strange stuck sure taken there thirsty thrilled tired undecided unemployed unknown vegan
    vegetarian weird well worried wrong young

    a an at ceo cfo cto from going god in my nobody not now only our so still the trying very your also just on
    common batman it he she they we you i this that what who where when why how yes no maybe
    """
)
