//! `convoy backup` and `convoy restore`.

use crate::exit::Failure;
use results_service::store::{RestoreOptions, StoreOptions, backup_database, restore};
use std::path::PathBuf;
use std::time::Duration;

/// How long a backup waits for another program's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// `convoy backup`.
#[derive(clap::Args, Clone, Debug)]
pub struct BackupArgs {
    /// The backup to be made; nothing may be there.
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// The SQLite database. results-service may be using it.
    #[arg(long, env = "DB_PATH", value_name = "PATH", default_value = "data/predictions.db")]
    db_path: PathBuf,
}

/// `convoy restore`.
#[derive(clap::Args, Clone, Debug)]
pub struct RestoreArgs {
    /// The backup; it is left as it is.
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// The SQLite database to be made; nothing may be there.
    #[arg(long, env = "DB_PATH", value_name = "PATH", default_value = "data/predictions.db")]
    db_path: PathBuf,

    /// The receipts of erasures: everybody who was erased since the backup stays erased. Default: erasures.log beside
    /// the database.
    #[arg(long, env = "ERASURES", value_name = "PATH")]
    erasures: Option<PathBuf>,

    /// The key under which the receipts name users. Default: erasure.key beside the database.
    #[arg(long, env = "ERASURE_KEY_FILE", value_name = "PATH")]
    erasure_key_file: Option<PathBuf>,
}

/// Makes a backup, also while results-service writes.
///
/// # Errors
/// [`Failure::Failed`] says why there is none.
#[allow(clippy::print_stdout, reason = "what the command is for")]
pub fn run_backup(args: &BackupArgs) -> Result<(), Failure> {
    let backup = backup_database(&args.db_path, &args.path, BUSY_TIMEOUT).map_err(failed)?;
    println!(
        "{}: {} bytes in {} ms. Keep the erasure receipts and their key, too, and not beside it.",
        backup.path.display(),
        backup.bytes,
        backup.duration.as_millis()
    );
    Ok(())
}

/// Puts a backup back, without those who were erased since.
///
/// # Errors
/// [`Failure::Failed`] says what is wrong; then there is no database.
#[allow(clippy::print_stdout, reason = "what the command is for")]
pub fn run_restore(args: RestoreArgs) -> Result<(), Failure> {
    let beside = StoreOptions::new(&args.db_path);
    let options = RestoreOptions {
        backup: args.path,
        database: args.db_path,
        erasures: args.erasures.unwrap_or(beside.erasures),
        erasure_key: args.erasure_key_file.unwrap_or(beside.erasure_key),
    };
    let restored = restore(&options).map_err(failed)?;
    println!(
        "{}: {} predictions. {} predictions of {} users who have been erased are not among them.",
        options.database.display(),
        restored.predictions,
        restored.erased_predictions,
        restored.erased_users
    );
    Ok(())
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}
