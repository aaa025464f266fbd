//! The one binary: all three services, and the command line tools.
