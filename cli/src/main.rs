//! `tieline`: vWires to network services, forwarded by the kernel.
//!
//! One binary. `tieline up` is the whole node, `tieline agent` and `tieline control` are its halves; every other
//! command is a client of their unix sockets and holds no state.
#![forbid(unsafe_code)]

mod args;
mod check;
mod client;
mod commands;
mod daemon;
mod demo;
mod error;
mod exit;
mod input;
mod logs;
mod output;
mod signals;
mod view;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match args::parse() {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let format = cli.global.output;
    logs::init(&cli.global, cli.command.is_daemon());
    match commands::run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            error::report(&failure, format);
            failure.exit().into()
        }
    }
}
