"""Support tickets as people have them: quotes, commas, line breaks, emoji, missing cells, labels with capitals."""

import csv
import random
from pathlib import Path

TEXTS = {
    "Bug": (
        "The {} page crashes",
        'I get an error, "{}", when I log in',
        "{} is broken again\nplease fix",
        "crash in {} 😡",
    ),
    "Feature request": ("Please add {} to the menu", "It would be great to have {}", "could you support {}?\nthanks!"),
    "Billing & payments": ("I was charged twice for {}", "refund my payment, {} is too expensive", "invoice for {} 💳"),
    "How-to question": ("How do I change {}?", 'where can I find "{}", and how does it work', "what is {} for"),
    "Account closure": (
        "close my account, {} is gone",
        "delete all my data and my profile, {}",
        "cancel {} 🙏 goodbye",
    ),
}
SHARES = (0.4, 0.25, 0.2, 0.13, 0.02)
THINGS = (
    "export",
    "the dashboard",
    "dark mode",
    "search",
    "the API",
    "billing, monthly",
    'my "pro" plan',
    "sync",
    "login",
)
MISSING = 0.03


def tickets(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Return rows with id, subject, text and label: 3% lack text or label, 2% have the rarest label."""
    rng, rows = random.Random(seed), []
    for number in range(count):
        (label,) = rng.choices(list(TEXTS), SHARES)
        text = rng.choice(TEXTS[label]).format(rng.choice(THINGS)) + rng.choice(("", "!", f" #{rng.randrange(1000)}"))
        row = {"id": f"{number:05}", "subject": rng.choice(("Hi", "", "Re: ticket")), "text": text, "label": label}
        if rng.random() < MISSING:
            row[rng.choice(("text", "label"))] = rng.choice(("", " ", "NaN", "null"))
        rows.append(row)
    return rows


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write rows as spreadsheets do."""
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
