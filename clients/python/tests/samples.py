"""Payloads and headers that a careless program would change."""

NASTY = (
    "back\\slash \\u00e4 \\n 'single' \"double\" %s %(x)s :name $1 {brace} "
    "Jürgen Ærø ß e\u0301 🎓👩\u200d🏫 \t\r\n"
)

PAYLOADS: dict[str, bytes | str | dict[str, object] | None] = {
    "nasty-text": NASTY,
    "nasty-json": {"text": NASTY, "nested": [{"ü": None}, 1.10, 10**30, True], "": ""},
    "json-text": '{"a":  1.10, "a": 2, "b": "\\u00e4 \\\\ \\/"}',
    "all-bytes": bytes(range(256)) * 4,
    "empty": b"",
    "tombstone": None,
}

HEADERS = {
    "x-nasty": NASTY,
    "X-Nasty": "other",
    "Ünïcode-🎓": "",
    "back\\slash": "\\",
    "": "empty name",
}
