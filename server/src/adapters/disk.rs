//! Adapters on disk: where they may be, which there are, and whether they have changed.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

/// Files of an adapter in PEFT layout. Pickled weights are looked at by the reader, which refuses
/// them by name.
const FILES: [&str; 3] = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
];

/// When an adapter's files were written, and how long they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp(Vec<(SystemTime, u64)>);

impl Stamp {
    /// Of the adapter at `path`, as it is now.
    pub(super) fn of(path: &Path) -> Self {
        let files = std::iter::once(path.to_path_buf()).chain(FILES.map(|file| path.join(file)));
        let stamp = |file: PathBuf| {
            let metadata = std::fs::metadata(file).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        Self(files.filter_map(stamp).collect())
    }
}

/// Whether there is nothing at `path` any more. What only cannot be read is not gone, nor is what
/// lies in a directory that is not there, such as one that is not mounted just now.
pub(super) fn is_gone(path: &Path) -> bool {
    if !path.parent().is_some_and(Path::is_dir) {
        return false;
    }
    let file = if path.extension().is_some_and(|ext| ext == "gguf") {
        path.to_path_buf()
    } else {
        path.join(FILES[0])
    };
    let missing = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    std::fs::metadata(file).is_err_and(|error| missing.contains(&error.kind()))
}

/// Whether something at `path` looks like an adapter.
pub(super) fn is_adapter(path: &Path) -> bool {
    path.join(FILES[0]).is_file()
        || (path.is_file() && path.extension().is_some_and(|ext| ext == "gguf"))
}

/// The adapter called `name` in `dir`: a directory, or a file `name.gguf`.
pub(super) fn in_dir(dir: &Path, name: &str) -> Option<PathBuf> {
    let mut components = Path::new(name).components();
    let is_plain = matches!(components.next(), Some(Component::Normal(part)) if part == name);
    if !is_plain || components.next().is_some() || name.starts_with('.') {
        return None;
    }
    let candidates = [dir.join(name), dir.join(format!("{name}.gguf"))];
    candidates.into_iter().find(|path| is_adapter(path))
}

/// Names of all adapters in `dir`.
pub(super) fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = if path.is_dir() {
            path.file_name()
        } else {
            path.file_stem()
        };
        if let Some(name) = name.and_then(|name| name.to_str())
            && in_dir(dir, name).is_some()
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Names and paths of all adapters in `dir`.
pub(crate) fn adapters_in(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let names = names_in(dir)?.into_iter();
    let found = names.filter_map(|name| in_dir(dir, &name).map(|path| (name, path)));
    Ok(found.collect())
}

/// `path` without links, if it and the files in it lie in `root`. A path that is not absolute
/// begins at `root`.
pub(super) fn confined(root: &Path, path: &Path) -> Result<PathBuf, String> {
    let outside = || {
        format!(
            "`{}` is not in the directory that adapters are loaded from",
            path.display()
        )
    };
    let missing = |error: io::Error| format!("`{}`: {error}", path.display());
    let root = root.canonicalize().map_err(missing)?;
    let real = root.join(path).canonicalize().map_err(|error| {
        // Whether something exists outside is not told.
        if root.join(path).starts_with(&root) && !has_parent(path) {
            missing(error)
        } else {
            outside()
        }
    })?;
    let files = FILES.iter().map(|file| real.join(file));
    let parts = files.filter_map(|file| file.canonicalize().ok());
    if parts
        .chain([real.clone()])
        .all(|part| part.starts_with(&root))
    {
        Ok(real)
    } else {
        Err(outside())
    }
}

fn has_parent(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_root_is_reached() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path();
        let root = top.join("root");
        for dir in ["root/good", "outside/bad", "root/linked-file"] {
            let dir = top.join(dir);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(FILES[0]), "{}").unwrap();
        }
        std::fs::write(top.join("outside/secret"), "x").unwrap();
        std::os::unix::fs::symlink(top.join("outside/bad"), root.join("link")).unwrap();
        let weights = root.join("linked-file").join(FILES[1]);
        std::os::unix::fs::symlink(top.join("outside/secret"), weights).unwrap();

        assert!(confined(&root, Path::new("good")).is_ok());
        assert!(confined(&root, &root.join("good")).is_ok());
        for path in [
            "../outside/bad",
            "link",
            "linked-file",
            "good/../../outside/bad",
            "/etc",
        ] {
            let error = confined(&root, Path::new(path)).unwrap_err();
            assert!(error.contains("not in the directory"), "{path}: {error}");
        }
        assert!(
            confined(&root, Path::new("absent"))
                .unwrap_err()
                .contains("absent")
        );
        assert_eq!(in_dir(&root, "good"), Some(root.join("good")));
        for name in ["..", ".", "", "good/", "../outside/bad", "/etc", "absent"] {
            assert_eq!(in_dir(&root, name), None, "{name}");
        }
    }
}
