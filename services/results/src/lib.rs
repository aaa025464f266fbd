//! REST over SQLite: keeps each prediction per request and user, and erases a user.
