//! The program `wbuild`: joins the command line to the engine and the plugins.
//!
//! The order at the start is fixed: a launcher process does nothing but launch; what can be refused
//! is refused before anything is touched; namespaces are entered before the first thread starts.

mod commands;
mod credentials;
mod plugins;
mod signals;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use wbuild_cli::args::plan::PlanCommand;
use wbuild_cli::args::{self, Cli, Command, ImagetoolsCommand, PluginCommand};
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::report::Report;
use wbuild_cli::report::style::Style;
use wbuild_cli::terminal;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    // Single-threaded, without signal handlers of ours, and they never return here.
    wbuild::serve_if_asked(&argv);
    std::panic::set_hook(Box::new(report_panic));
    // The hook has said what there is to say.
    catch_unwind(AssertUnwindSafe(|| run(argv))).unwrap_or(Exit::Bug).into()
}

fn run(argv: Vec<OsString>) -> Exit {
    let cli = match args::parse(argv) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output, errors to standard error; a closed pipe is no matter.
            let _ = error.print();
            return if error.exit_code() == 0 { Exit::Success } else { Exit::Usage };
        }
    };
    let environment = match Environment::of_process() {
        Ok(environment) => environment,
        Err(fault) => return report(&fault, Style::new(false)),
    };
    dispatch(cli, &environment)
        .unwrap_or_else(|fault| report(&fault, Style::new(environment.colour())))
}

fn dispatch(cli: Cli, environment: &Environment) -> Result<Exit, Fault> {
    match cli.command {
        None => commands::build::run(&cli.build, environment),
        Some(Command::Build(build)) => commands::build::run(&build, environment),
        Some(Command::Plan(args)) => match &args.command {
            None => commands::plan::run(&args, environment),
            Some(PlanCommand::Diff(diff)) => commands::plan::diff(diff, environment),
        },
        Some(Command::Du(args)) => commands::du::run(&args, environment),
        Some(Command::Explain(args)) => commands::explain::run(&args, environment),
        Some(Command::Prune(args)) => commands::prune::run(&args, environment),
        Some(Command::Fsck(args)) => commands::fsck::run(&args, environment),
        Some(Command::Doctor(args)) => commands::doctor::run(&args, environment),
        Some(Command::Imagetools(ImagetoolsCommand::Inspect(args))) => {
            commands::imagetools::inspect(&args, environment)
        }
        Some(Command::Imagetools(ImagetoolsCommand::Create(args))) => {
            commands::imagetools::create(&args, environment)
        }
        Some(Command::Plugin(PluginCommand::Inspect(args))) => {
            commands::plugin::inspect::run(&args, environment)
        }
        Some(Command::Plugin(PluginCommand::List(args))) => {
            commands::plugin::list(&args, environment)
        }
        Some(Command::Plugin(PluginCommand::Publish(args))) => {
            commands::plugin::publish(&args, environment)
        }
        Some(Command::Plugin(PluginCommand::Verify(args))) => {
            commands::plugin::verify(&args, environment)
        }
        Some(Command::Plugin(PluginCommand::Warm(args))) => {
            commands::plugin::warm(&args, environment)
        }
        Some(Command::Plugin(PluginCommand::Update(args))) => {
            commands::plugin::update(&args, environment)
        }
        Some(Command::Plugin(PluginCommand::New(args))) => commands::plugin::new::run(&args),
        Some(Command::Plugin(PluginCommand::Build(args))) => {
            commands::plugin::build::run(&args, environment)
        }
        Some(Command::Plugin(PluginCommand::Run(args))) => commands::plugin::run::run(&args),
        Some(Command::Plugin(PluginCommand::Test(args))) => {
            commands::plugin::test::run(&args, environment)
        }
        Some(Command::Plugin(PluginCommand::Trace(args))) => {
            commands::plugin::trace::run(&args, environment)
        }
        Some(Command::Version) => {
            terminal::print(concat!("wbuild ", env!("CARGO_PKG_VERSION"), "\n").as_bytes())?;
            Ok(Exit::Success)
        }
    }
}

/// Says what went wrong, for everything but a build that had begun.
fn report(fault: &Fault, style: Style) -> Exit {
    let report = Report { style, sources: &fault.sources, output_was_shown: true };
    terminal::eprint(&report.failure(&fault.failure, None));
    fault.exit
}

/// A panic is a bug of ours, and the user should know that it is not theirs.
fn report_panic(panic: &std::panic::PanicHookInfo<'_>) {
    terminal::restore();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = std::backtrace::Backtrace::capture();
    let trace = match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => "\n  hint: RUST_BACKTRACE=1 shows where it came from".to_owned(),
    };
    terminal::eprint(&format!(
        "error: wbuild {} has a bug: thread {thread}: {panic}{trace}\n  \
         hint: please report it, with this message, what you ran, and the output of `wbuild doctor`\n",
        env!("CARGO_PKG_VERSION"),
    ));
}
