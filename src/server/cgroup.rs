//! The memory that the process's cgroups allow it (cgroups(7)), of both versions.

use std::fs;
use std::path::Path;

/// Version 1 writes the largest number of pages for "no limit"; nobody has so much.
const NO_LIMIT: u64 = 1 << 60;

/// The smallest limit of the process's own cgroup and of those around it, in bytes; `None`: there is none.
pub(super) fn memory_limit() -> Option<u64> {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    limit_in(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
}

/// `own` has the process's cgroups, `mounts` where their hierarchies are (proc_pid_cgroup(5), proc_pid_mountinfo(5)).
fn limit_in(own: &str, mounts: &str) -> Option<u64> {
    mounts.lines().filter_map(|mount| limit_of_mount(own, mount)).min()
}

fn limit_of_mount(own: &str, mount: &str) -> Option<u64> {
    let (place, kind) = mount.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, mount_point) = (place.next()?, Path::new(place.next()?));
    let mut kind = kind.split(' ');
    let has_memory = |list: &str| list.split(',').any(|controller| controller == "memory");
    let (is_own, file): (fn(&str) -> bool, _) = match (kind.next()?, kind.nth(1)?) {
        ("cgroup2", _) => (|controllers| controllers.is_empty(), "memory.max"),
        ("cgroup", options) if has_memory(options) => {
            (|controllers| controllers.split(',').any(|one| one == "memory"), "memory.limit_in_bytes")
        }
        _ => return None,
    };
    // ID:CONTROLLERS:PATH
    let path = own.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        is_own(controllers).then_some(path)
    })?;
    // In a container only a part of the hierarchy may be mounted, or the path be told from outside of it: then the
    // mount point is the outermost group that can be seen.
    let group = Path::new(path).strip_prefix(root).ok().filter(|group| !group.starts_with(".."));
    let groups = group.unwrap_or(Path::new("")).ancestors();
    groups.filter_map(|group| read_limit(&mount_point.join(group).join(file))).min()
}

/// `None`: it has none, which version 2 writes as `max`.
fn read_limit(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok().filter(|limit| *limit < NO_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files, as the mount point of a hierarchy.
    fn limit(own: &str, mount: &str, files: &[(&str, &str)]) -> Option<u64> {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("it is ours");
            fs::write(path, text).expect("it is ours");
        }
        limit_in(own, &mount.replace("HERE", &folder.path().display().to_string()))
    }

    const V2: &str = "25 30 0:22 / HERE rw,nosuid shared:9 - cgroup2 cgroup2 rw";
    const V1: &str = "29 1 0:1 / / rw - ext4 /dev/sda rw\n32 31 0:29 / /nowhere rw - cgroup cgroup rw,cpu\n\
                      35 31 0:32 / HERE rw,relatime - cgroup cgroup rw,memory";

    #[test]
    fn the_smallest_limit_around_the_process_holds_in_version_2() {
        let files =
            [("pod/app/memory.max", "max\n"), ("pod/memory.max", "134217728\n"), ("memory.max", "1073741824\n")];
        assert_eq!(limit("0::/pod/app\n", V2, &files), Some(128 << 20));
        assert_eq!(limit("0::/\n", V2, &files), Some(1 << 30));
        assert_eq!(limit("0::/other\n", V2, &files[..1]), None);
    }

    #[test]
    fn the_smallest_limit_around_the_process_holds_in_version_1() {
        let own = "9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/\n";
        let unlimited = ("memory.limit_in_bytes", "9223372036854771712\n");
        let files = [("docker/abc/memory.limit_in_bytes", "134217728\n"), unlimited];
        assert_eq!(limit(own, V1, &files), Some(128 << 20));
        assert_eq!(limit("4:memory:/other\n", V1, &files), None);
        assert_eq!(limit("4:cpu:/docker/abc\n", V1, &files), None);
    }

    #[test]
    fn a_container_sees_its_own_part_of_the_hierarchy() {
        let part = V1.replace("0:32 /", "0:32 /docker/abc");
        let files = [("memory.limit_in_bytes", "134217728\n"), ("inner/memory.limit_in_bytes", "67108864\n")];
        assert_eq!(limit("4:memory:/docker/abc\n", &part, &files), Some(128 << 20));
        assert_eq!(limit("4:memory:/docker/abc/inner\n", &part, &files), Some(64 << 20));
        assert_eq!(limit("4:memory:/elsewhere\n", &part, &files), Some(128 << 20));
        let files = [("memory.max", "134217728\n")];
        assert_eq!(limit("0::/../../other\n", V2, &files), Some(128 << 20), "outside of its namespace");
    }
}
