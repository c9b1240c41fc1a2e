//! `wbuild imagetools`. Needs neither the state directory nor namespaces.

use wbuild_api::event::{BuildError, BuildReport};
use wbuild_cli::args::imagetools::{ImageCreateArgs, ImageInspectArgs};
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::progress::{Display, Ending, Quiet, json};
use wbuild_cli::report::style::Style;
use wbuild_cli::report::{self, Report};
use wbuild_cli::resolve::{self, Display as Shown, Lends};
use wbuild_cli::{answer::lint::Findings, imagetools, metadata, terminal};
use wbuild_engine::imagetools::{Created, ImageTools};
use wbuild_graph::{Failure, FailureKind};

use super::engine::{alone, renderer, with_session};

/// Looks into an image.
pub fn inspect(args: &ImageInspectArgs, environment: &Environment) -> Result<Exit, Fault> {
    let place = imagetools::place(&args.name, environment)?;
    let lends = Lends::to_registries(args.registry_config.as_deref(), environment)?;
    let display = Display::start(Box::new(Quiet), Box::new(std::io::stderr()));
    let configs_wanted = args.format.as_ref().is_some_and(|format| format.asks_for("image"));
    let sink = display.sink();
    let result = with_session(lends, environment, display.sink(), async |session, cancel| {
        let tools = ImageTools::new(session, environment.temp_dir(), sink);
        let work = async {
            let found = tools.find(&place).await?;
            let configs = match configs_wanted {
                true => Some(tools.configs(&place, &found).await?),
                false => None,
            };
            Ok((found, configs))
        };
        tokio::select! {
            result = work => result.map_err(alone),
            () = cancel.cancelled() => Err(alone(Failure::cancelled())),
        }
    });
    display.finish(if result.is_ok() { Ending::Finished } else { Ending::Failed });
    let (found, configs) = result.map_err(|error| Fault::from(error.failure))?;
    if args.raw {
        // Byte for byte, so that its digest is the image's.
        terminal::print(&found.bytes)?;
    } else if args.json {
        return super::print_json(&imagetools::to_json(&place, &found));
    } else if let Some(format) = &args.format {
        let document = imagetools::document(&place, &found, configs.as_deref());
        let text = format.render(&document);
        let text = text.map_err(|error| Fault::usage(format!("cannot use --format: {error}")))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        // Programs get tabs and all else as the template has them.
        let text = match environment.stdout_terminal {
            true => terminal::plain(text),
            false => text.to_owned(),
        };
        terminal::print(format!("{text}\n").as_bytes())?;
    } else {
        terminal::print(imagetools::text(&place, &found).as_bytes())?;
    }
    Ok(Exit::Success)
}

/// Joins images.
pub fn create(args: &ImageCreateArgs, environment: &Environment) -> Result<Exit, Fault> {
    let create = imagetools::create(args, environment)?;
    let lends = Lends::to_registries(args.registry_config.as_deref(), environment)?;
    let shown = resolve::display(false, args.progress, environment)?;
    let style = Style::new(environment.colour());
    let display = Display::start(renderer(shown, style), Box::new(std::io::stderr()));
    let sink = display.sink();
    let result = with_session(lends, environment, display.sink(), async |session, cancel| {
        let tools = ImageTools::new(session, environment.temp_dir(), sink);
        let work = async {
            let created = tools.create(&create).await?;
            if !args.dry_run {
                tools.push(&created, &create.targets).await?;
            }
            Ok(created)
        };
        let result = tokio::select! {
            result = work => result,
            () = cancel.cancelled() => Err(Failure::cancelled()),
        };
        result.map_err(|failure: Failure| {
            let step = tools.failed_step();
            Box::new(BuildError { failure, step, sources: Default::default() })
        })
    });
    let model = display.finish(match &result {
        Ok(_) => Ending::Finished,
        Err(error) if error.failure.kind == FailureKind::Cancelled => Ending::Cancelled,
        Err(_) => Ending::Failed,
    });
    let created: Created = match result {
        Ok(created) => created,
        Err(error) => {
            let BuildError { failure, step, sources } = &*error;
            let exit = Exit::of(failure);
            let report = Report { style, sources, output_was_shown: true };
            let text = report.failure(failure, step.and_then(|id| model.step(id)));
            match shown {
                Shown::Json => terminal::eprint(&json::failed(failure, *step, exit, &text)),
                _ => terminal::eprint(&text),
            }
            return Ok(exit);
        }
    };
    let image = created.report(&create.targets);
    if let Some(path) = &args.metadata_file {
        let value = serde_json::Value::Object(metadata::image(&image));
        let mut text =
            serde_json::to_string_pretty(&value).expect("keys are strings, so it is JSON");
        text.push('\n');
        metadata::replace_file(&environment.absolute(path), text.as_bytes())?;
    }
    if args.dry_run {
        terminal::print(&[&created.bytes[..], b"\n"].concat())?;
        return Ok(Exit::Success);
    }
    let report = BuildReport { images: vec![image], ..BuildReport::default() };
    match shown {
        Shown::Json => terminal::eprint(&json::succeeded(
            &report,
            &Findings::of(&model.diagnostics, &report.sources),
        )),
        Shown::Quiet => {}
        Shown::Tty | Shown::Plain => terminal::eprint(&report::success(&report, style, false)),
    }
    Ok(Exit::Success)
}
