"""The tables of the index."""

VERSION = 3
"""What is written into the file; the negative of it where SQLite cannot search. Any other file is built anew."""

RUNS = """
CREATE TABLE runs (
    run TEXT PRIMARY KEY, at REAL, open INTEGER, status TEXT, trigger TEXT, command TEXT, task TEXT, thread TEXT,
    id TEXT, key TEXT, published INTEGER, used INTEGER, tokens_in INTEGER, tokens_out INTEGER, cost REAL,
    doc INTEGER, digest BLOB, record BLOB
) WITHOUT ROWID;
CREATE INDEX runs_at ON runs (at, run);
CREATE INDEX runs_open ON runs (run) WHERE open;
CREATE INDEX runs_published ON runs (at, run) WHERE published;
CREATE INDEX runs_task ON runs (task, at, run) WHERE task != '';
CREATE INDEX runs_thread ON runs (thread, at, run) WHERE thread != '';
CREATE INDEX runs_status ON runs (status, at, run);
CREATE INDEX runs_trigger ON runs (trigger, at, run);
CREATE INDEX runs_total ON runs (trigger, status, at, run);
CREATE INDEX runs_used ON runs (used, tokens_in, tokens_out, cost) WHERE used;
CREATE INDEX runs_id ON runs (id, at, run) WHERE id != '';
CREATE INDEX runs_key ON runs (key, at, run) WHERE key != '';
CREATE INDEX runs_command ON runs (command, at, run);
CREATE INDEX runs_doc ON runs (doc, at, run) WHERE doc;
"""

TEXTS = """
CREATE VIRTUAL TABLE texts USING fts5 (
    command, text, answer, error, content='', tokenize='unicode61 remove_diacritics 2'
);
"""

REMOVED = """
CREATE TABLE removed (
    run TEXT PRIMARY KEY, at REAL, key TEXT, id TEXT, lies INTEGER, leaving INTEGER, file TEXT, record BLOB
) WITHOUT ROWID;
CREATE INDEX removed_lies ON removed (at, run) WHERE lies;
CREATE INDEX removed_leaving ON removed (run) WHERE leaving;
CREATE INDEX removed_file ON removed (file);
CREATE INDEX removed_id ON removed (id, at) WHERE id != '';
CREATE INDEX removed_key ON removed (key, at) WHERE key != '';
CREATE TABLE removed_read (file TEXT PRIMARY KEY, size INTEGER) WITHOUT ROWID;
"""
