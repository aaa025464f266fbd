"""The service that results-service is compared with: Flask and sqlite3, a connection per request, as such services are
usually written. It stores and shows predictions; each answer is sent after its own commit.

    DB_PATH=/tmp/flask.db gunicorn --workers 2 --bind 127.0.0.1:5102 --chdir tests/load flask_results:app
"""

import os
import sqlite3
from datetime import datetime, timezone

from flask import Flask, jsonify, request

DB_PATH = os.environ.get("DB_PATH", "flask.db")
FIELDS = ("request_id", "user_id", "predictions", "model_version", "inference_time_ms")

app = Flask(__name__)


def connect():
    connection = sqlite3.connect(DB_PATH, timeout=30)
    connection.row_factory = sqlite3.Row
    # What results-service promises: an answer comes after its sync.
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def create_table():
    connection = connect()
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(
        """CREATE TABLE IF NOT EXISTS predictions (
               id INTEGER PRIMARY KEY,
               request_id TEXT NOT NULL UNIQUE,
               user_id TEXT NOT NULL,
               predictions TEXT NOT NULL,
               model_version TEXT NOT NULL,
               inference_time_ms REAL NOT NULL,
               timestamp TEXT NOT NULL)"""
    )
    connection.execute("CREATE INDEX IF NOT EXISTS by_user ON predictions (user_id, timestamp)")
    connection.commit()
    connection.close()


create_table()


@app.get("/health")
def health():
    return jsonify(status="healthy")


@app.post("/predictions")
def create():
    body = request.get_json()
    for field in FIELDS:
        if field not in body:
            return jsonify(error=f"Missing field: {field}"), 400
    timestamp = datetime.now(timezone.utc).isoformat()
    connection = connect()
    try:
        connection.execute(
            "INSERT INTO predictions (request_id, user_id, predictions, model_version, inference_time_ms, timestamp)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                body["request_id"],
                body["user_id"],
                app.json.dumps(body["predictions"]),
                body["model_version"],
                body["inference_time_ms"],
                timestamp,
            ),
        )
        connection.commit()
    except sqlite3.IntegrityError:
        return jsonify(error="exists"), 409
    finally:
        connection.close()
    return jsonify(status="success", request_id=body["request_id"], timestamp=timestamp), 201


@app.get("/predictions/<request_id>")
def show(request_id):
    connection = connect()
    try:
        row = connection.execute("SELECT * FROM predictions WHERE request_id = ?", (request_id,)).fetchone()
    finally:
        connection.close()
    if row is None:
        return jsonify(error="not found"), 404
    record = dict(row)
    record["predictions"] = app.json.loads(record["predictions"])
    return jsonify(record)
