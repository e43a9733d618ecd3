//! Flags that say where results go, the same for every command that makes some.

use std::path::PathBuf;

/// Where results go.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub struct OutputFlags {
    /// Folder for the results; must not exist or be empty [default: results/TIME-NAME]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Print the summary as JSON instead of a table; names as in summary.csv
    #[arg(long)]
    pub json: bool,
}
