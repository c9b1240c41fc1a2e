//! `wbuild doctor`.

use serde_json::{Value, json};
use wbuild_cli::args::DoctorArgs;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::report::style::{Paint, Style};
use wbuild_cli::terminal;
use wbuild_exec::facts::{Check, Facts, State};

/// Runs the command.
pub fn run(args: &DoctorArgs, environment: &Environment) -> Result<Exit, Fault> {
    if let Some(named) = &args.platforms {
        return super::platforms::run(named, args.json, environment);
    }
    let search = environment.search_path();
    let state_dir = environment.state_dir(args.state.state_dir.as_deref())?;
    let code_cache = environment.code_cache_dir();
    let checks = Facts::gather(&search).checks(&wbuild_exec::runtime::find(&search));
    let works = checks.iter().all(|check| check.state != State::Missing);
    let fix = |check: &Check| -> Option<String> {
        // The first whose program is there; where none is, the first says best what is wanted.
        let there = |fix: &&String| {
            let program = fix.split_whitespace().find(|word| *word != "sudo");
            program.is_some_and(|name| search.iter().any(|dir| dir.join(name).is_file()))
        };
        check.fixes.iter().find(there).or(check.fixes.first()).cloned()
    };
    if args.json {
        let checks: Vec<Value> = checks
            .iter()
            .map(|check| {
                json!({
                    "name": check.name,
                    "state": word(check.state),
                    "detail": check.detail,
                    "fix": fix(check),
                })
            })
            .collect();
        super::print_json(&json!({
            "works": works, "checks": checks, "state_dir": state_dir, "code_cache_dir": code_cache,
        }))?;
    } else {
        let colour = environment.stdout_terminal && environment.colour();
        let mut text = render(&checks, fix, Style::new(colour));
        text.push_str(&format!("\nstate       {}\n", state_dir.display()));
        text.push_str(&format!("code cache  {}\n\n", code_cache.display()));
        text.push_str(if works {
            "Builds work here.\n"
        } else {
            "Builds with RUN steps do not work here.\n"
        });
        terminal::print(text.as_bytes())?;
    }
    Ok(if works { Exit::Success } else { Exit::Failed })
}

fn word(state: State) -> &'static str {
    match state {
        State::Good => "good",
        State::Limited => "limited",
        State::Missing => "missing",
    }
}

fn render(checks: &[Check], fix: impl Fn(&Check) -> Option<String>, style: Style) -> String {
    let mut out = String::new();
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for check in checks {
        let paint = match check.state {
            State::Good => Paint::Good,
            State::Limited => Paint::Warning,
            State::Missing => Paint::Error,
        };
        let state = style.paint(paint, &format!("{:<7}", word(check.state)));
        let detail = terminal::plain(&check.detail).replace('\n', " ");
        out.push_str(&format!("{state}  {:<width$}  {detail}\n", check.name));
        if let Some(fix) = fix(check).filter(|_| check.state != State::Good) {
            let arrow = style.paint(Paint::Hint, "fix:");
            out.push_str(&format!("{:9}{:<width$}  {arrow} {fix}\n", "", ""));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_is_wrong_and_the_remedy() {
        let check = |name, state, fixes: &[&str]| Check {
            name,
            state,
            detail: format!("about {name}"),
            fixes: fixes.iter().map(|fix| (*fix).to_owned()).collect(),
        };
        let checks = [
            check("runtime", State::Missing, &["apt-get install crun"]),
            check("overlayfs", State::Good, &["modprobe overlay"]),
            check("ids", State::Limited, &[]),
        ];
        let text = render(&checks, |check| check.fixes.first().cloned(), Style::new(false));
        assert_eq!(
            text,
            "missing  runtime    about runtime\n                    fix: apt-get install crun\n\
             good     overlayfs  about overlayfs\n\
             limited  ids        about ids\n"
        );
    }
}
