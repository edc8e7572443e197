//! The CPUs that this process may use, and which of them are threads of one physical core.
//!
//! Here: the information in Linux's sysfs and the process's affinity mask. On other platforms nothing is known, and the
//! operating system places the threads. A CPU is what the operating system calls one: a hardware thread.

use std::collections::BTreeMap;
use std::path::Path;

use super::sysfs;

/// Most CPUs: the size of the C library's affinity mask. A machine with more is not pinned.
const MAX_CPUS: usize = 1024;

/// Physical cores, each with the CPUs that are its threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Ordered by their lowest CPU; CPUs ascending.
    cores: Vec<Vec<usize>>,
    /// Number of NUMA nodes of these CPUs; 1 if unknown.
    nodes: usize,
}

impl Topology {
    /// The topology of this machine, restricted to what this process may use; `None` if the platform does not report
    /// it.
    #[must_use]
    pub fn here() -> Option<Self> {
        let allowed = super::placement::allowed()?;
        Self::read(Path::new("/sys/devices/system"), &allowed)
    }

    /// The topology of these CPUs, from a folder such as `/sys/devices/system`. CPUs that the folder does not list or
    /// that are offline are left out; `None` if none is left.
    #[must_use]
    pub fn read(root: &Path, allowed: &[usize]) -> Option<Self> {
        let online = list(&sysfs::text(&root.join("cpu/online"))?);
        let mut cores: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for &cpu in online.iter().filter(|cpu| allowed.contains(cpu)) {
            let folder = root.join(format!("cpu/cpu{cpu}/topology"));
            // The newer name, then the older one; a kernel with neither reports no siblings.
            let siblings = ["core_cpus_list", "thread_siblings_list"]
                .iter()
                .find_map(|file| list(&sysfs::text(&folder.join(file))?).first().copied());
            cores.entry(siblings.unwrap_or(cpu)).or_default().push(cpu);
        }
        let mut cores: Vec<Vec<usize>> = cores.into_values().collect();
        cores.sort_by_key(|cpus| cpus[0]);
        let is_node = |name: &str| name.strip_prefix("node").is_some_and(|rest| rest.parse::<u32>().is_ok());
        let nodes = sysfs::entries(&root.join("node")).into_iter().filter(|node| is_node(sysfs::name(node)));
        let ours = |cpu: &usize| cores.iter().flatten().any(|own| own == cpu);
        let nodes = nodes.filter_map(|node| sysfs::text(&node.join("cpulist")));
        let nodes = nodes.filter(|cpus| list(cpus).iter().any(ours)).count().max(1);
        (!cores.is_empty()).then_some(Self { cores, nodes })
    }

    /// Number of physical cores.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// Number of CPUs, that is, hardware threads.
    #[must_use]
    pub fn cpus(&self) -> usize {
        self.cores.iter().map(Vec::len).sum()
    }

    /// Number of NUMA nodes.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// The CPUs in the order in which threads are assigned to them: one of each physical core, then their siblings. The
    /// first `spare` cores are left out: most systems handle their interrupts there.
    #[must_use]
    pub fn order(&self, spare: usize) -> Vec<usize> {
        let used = self.cores.get(spare..).unwrap_or_default();
        let deepest = used.iter().map(Vec::len).max().unwrap_or(0);
        (0..deepest).flat_map(|depth| used.iter().filter_map(move |core| core.get(depth).copied())).collect()
    }
}

/// Parses a list as written in sysfs, such as `0-3,8`: ascending, without invalid parts and numbers from `MAX_CPUS` up.
fn list(text: &str) -> Vec<usize> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cpus.extend(first..=last.min(MAX_CPUS - 1));
        }
    }
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::device::tests::Folder;

    /// Two sockets of two cores with two threads each, siblings four apart as Linux numbers them, one NUMA node per
    /// socket.
    fn machine(online: &str) -> Folder {
        let folder = Folder::new("topology");
        folder.write("cpu/online", online);
        for cpu in 0..8 {
            let siblings = format!("{},{}\n", cpu % 4, cpu % 4 + 4);
            folder.write(&format!("cpu/cpu{cpu}/topology/core_cpus_list"), &siblings);
        }
        folder.write("node/node0/cpulist", "0-1,4-5\n");
        folder.write("node/node1/cpulist", "2-3,6-7\n");
        folder.write("node/possible", "0-1\n");
        folder
    }

    const ALL: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

    #[test]
    fn each_core_gets_one_thread_before_any_gets_its_second() {
        let machine = machine("0-7\n");
        let topology = Topology::read(machine.path(), &ALL).unwrap();
        assert_eq!((topology.cores(), topology.cpus(), topology.nodes()), (4, 8, 2));
        assert_eq!(topology.order(0), ALL);
        // The order by core is the same if siblings are numbered consecutively.
        for cpu in 0..8 {
            let siblings = format!("{}-{}\n", cpu / 2 * 2, cpu / 2 * 2 + 1);
            machine.write(&format!("cpu/cpu{cpu}/topology/core_cpus_list"), &siblings);
        }
        let topology = Topology::read(machine.path(), &ALL).unwrap();
        assert_eq!(topology.order(0), [0, 2, 4, 6, 1, 3, 5, 7]);
    }

    #[test]
    fn spare_cores_keep_all_their_threads_free() {
        let machine = machine("0-7");
        let topology = Topology::read(machine.path(), &ALL).unwrap();
        assert_eq!(topology.order(1), [1, 2, 3, 5, 6, 7]);
        assert!(topology.order(4).is_empty() && topology.order(99).is_empty());
    }

    #[test]
    fn only_cpus_that_are_online_and_allowed_count() {
        let machine = machine("0-2,4-7");
        let topology = Topology::read(machine.path(), &[0, 3, 4, 5, 900]).unwrap();
        assert_eq!((topology.order(0), topology.nodes()), (vec![0, 5, 4], 1));
        assert_eq!(Topology::read(machine.path(), &[3]), None);
        assert_eq!(Topology::read(&machine.path().join("nowhere"), &ALL), None);
    }

    #[test]
    fn without_siblings_each_cpu_is_a_core_and_nonsense_is_left_out() {
        let machine = machine("0-1,x,7-5,,3-99999999999999999999,2");
        fs::remove_dir_all(machine.path().join("node")).unwrap();
        for cpu in 0..8 {
            fs::remove_dir_all(machine.path().join(format!("cpu/cpu{cpu}"))).unwrap();
        }
        let topology = Topology::read(machine.path(), &ALL).unwrap();
        assert_eq!((topology.order(0), topology.nodes()), (vec![0, 1, 2], 1));
        assert_eq!(list("0-4294967295").len(), MAX_CPUS);
    }
}
