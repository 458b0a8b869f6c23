//! Memory that this process may still take: of the machine, and of its control groups.

use std::path::Path;

/// Free bytes; page cache that can be dropped counts as free. `u64::MAX` where the system does
/// not tell.
pub fn available_bytes() -> u64 {
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| meminfo_available(&text));
    [machine, cgroup2(), cgroup1()]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(u64::MAX)
}

/// Bytes of the files that hold weights.
pub fn weight_file_bytes(path: &Path) -> u64 {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |about| about.len());
    if path.is_file() {
        return size(path);
    }
    let Ok(entries) = std::fs::read_dir(path) else {
        return 0;
    };
    let is_weights = |path: &Path| {
        path.extension()
            .is_some_and(|end| end == "safetensors" || end == "gguf")
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| is_weights(path))
        .map(|path| size(&path))
        .sum()
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn number(path: &Path) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

fn meminfo_available(text: &str) -> Option<u64> {
    let kib = field(text, "MemAvailable:")?;
    Some(kib * 1024)
}

/// The number after `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The tightest limit of the process's group and the groups around it (version 2).
fn cgroup2() -> Option<u64> {
    let groups = read(Path::new("/proc/self/cgroup"))?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(own.trim_start_matches('/'));
    own.ancestors()
        .take_while(|dir| dir.starts_with(root))
        .filter_map(|dir| {
            let limit = number(&dir.join("memory.max"))?;
            let used = number(&dir.join("memory.current"))?;
            Some(free_below(
                limit,
                used,
                &read(&dir.join("memory.stat"))?,
                "inactive_file ",
            ))
        })
        .min()
}

/// The same of version 1, as containers see it.
fn cgroup1() -> Option<u64> {
    let dir = Path::new("/sys/fs/cgroup/memory");
    let limit = number(&dir.join("memory.limit_in_bytes"))?;
    let used = number(&dir.join("memory.usage_in_bytes"))?;
    let stat = read(&dir.join("memory.stat"))?;
    Some(free_below(limit, used, &stat, "total_inactive_file "))
}

fn free_below(limit: u64, used: u64, stat: &str, droppable: &str) -> u64 {
    let droppable = field(stat, droppable).unwrap_or(0);
    limit.saturating_sub(used.saturating_sub(droppable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_the_kernels_files() {
        let text = "MemTotal:  100 kB\nMemFree:   7 kB\nMemAvailable:     42 kB\n";
        assert_eq!(meminfo_available(text), Some(42 * 1024));
        assert_eq!(meminfo_available("MemTotal: 3 kB"), None);
        let stat = "anon 5\ninactive_file 30\n";
        assert_eq!(free_below(100, 90, stat, "inactive_file "), 40);
        assert_eq!(free_below(10, 90, stat, "inactive_file "), 0);
    }

    #[test]
    fn what_is_free_is_a_part_of_what_there_is() {
        let total = read(Path::new("/proc/meminfo")).and_then(|text| field(&text, "MemTotal:"));
        if let Some(kib) = total {
            let available = available_bytes();
            assert!(
                (1 << 20..kib * 1024).contains(&available),
                "{available} bytes of {kib} KiB"
            );
        }
    }
}
