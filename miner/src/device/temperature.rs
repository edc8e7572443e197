//! The CPU's temperature on Linux, from the sensors of the vendor's driver, or else the firmware's thermal zones.
//!
//! Here: reading it, and the decision to pause. Not here: who reads it, and what pausing means ([`super::Cpu`]).

use std::path::{Path, PathBuf};

use super::sysfs;

/// Drivers for CPU sensors: AMD, Intel, AMD by another author, boards with an ARM CPU.
const DRIVERS: [&str; 4] = ["k10temp", "coretemp", "zenpower", "cpu_thermal"];
/// Thermal zones of the CPU, best first.
const ZONES: [&str; 4] = ["x86_pkg_temp", "cpu-thermal", "cpu_thermal", "acpitz"];
/// Plausible readings in degrees Celsius; a sensor outside of this range is broken.
const BELIEVED: std::ops::RangeInclusive<f32> = -50.0..=150.0;
/// Degrees below the limit at which hashing resumes: with less, it would switch on and off every few seconds.
const COOLER: f32 = 5.0;

/// The CPU's hottest reading in degrees Celsius, from a folder such as `/sys`; `None` if there is no sensor.
#[must_use]
pub fn read(root: &Path) -> Option<f32> {
    let drivers = sysfs::entries(&root.join("class/hwmon"));
    let ours = drivers
        .iter()
        .filter(|folder| sysfs::text(&folder.join("name")).is_some_and(|name| DRIVERS.contains(&&*name)));
    ours.filter_map(|folder| hottest(folder)).reduce(f32::max).or_else(|| zone(root))
}

/// The hottest sensor of one driver. AMD's `Tctl` is the temperature plus an offset for the fan control; if there is
/// also a `Tdie`, that is the true one.
fn hottest(folder: &Path) -> Option<f32> {
    let inputs: Vec<(PathBuf, String)> = sysfs::entries(folder)
        .into_iter()
        .filter_map(|file| {
            let number = sysfs::name(&file).strip_prefix("temp")?.strip_suffix("_input")?.to_owned();
            let label = sysfs::text(&folder.join(format!("temp{number}_label"))).unwrap_or_default();
            Some((file, label))
        })
        .collect();
    let has_die = inputs.iter().any(|(_, label)| label == "Tdie");
    let inputs = inputs.iter().filter(|(_, label)| !(has_die && label == "Tctl"));
    inputs.filter_map(|(file, _)| celsius(file)).reduce(f32::max)
}

fn zone(root: &Path) -> Option<f32> {
    let zones = sysfs::entries(&root.join("class/thermal"));
    ZONES.iter().find_map(|wanted| {
        let ours =
            zones.iter().filter(|zone| sysfs::text(&zone.join("type")).is_some_and(|is| is == *wanted));
        ours.filter_map(|zone| celsius(&zone.join("temp"))).reduce(f32::max)
    })
}

/// The kernel reports thousandths of a degree.
fn celsius(file: &Path) -> Option<f32> {
    let celsius = sysfs::number::<i32>(file)? as f32 / 1000.0;
    BELIEVED.contains(&celsius).then_some(celsius)
}

/// Whether it is too hot to hash, with hysteresis.
#[derive(Debug)]
pub(super) struct Limit {
    most: f32,
    paused: bool,
}

impl Limit {
    pub(super) fn new(most: f32) -> Self {
        Self { most, paused: false }
    }

    /// Whether to pause at this temperature. A sensor that stops reporting pauses nothing: the CPU protects itself.
    pub(super) fn pauses(&mut self, celsius: Option<f32>) -> bool {
        self.paused = match celsius {
            Some(celsius) if self.paused => celsius > self.most - COOLER,
            Some(celsius) => celsius >= self.most,
            None => false,
        };
        self.paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::tests::Folder;

    #[test]
    fn the_hottest_sensor_of_the_cpus_driver_counts() {
        let sys = Folder::new("hwmon");
        assert_eq!(read(sys.path()), None);
        sys.write("class/hwmon/hwmon0/name", "nvme\n");
        sys.write("class/hwmon/hwmon0/temp1_input", "99000\n");
        assert_eq!(read(sys.path()), None, "a disk is no CPU");
        sys.write("class/hwmon/hwmon1/name", "coretemp\n");
        sys.write("class/hwmon/hwmon1/temp1_input", "51000\n");
        sys.write("class/hwmon/hwmon1/temp2_input", "56500\n");
        sys.write("class/hwmon/hwmon1/temp2_max", "100000\n");
        assert_eq!(read(sys.path()), Some(56.5));
        // A second socket.
        sys.write("class/hwmon/hwmon2/name", "coretemp\n");
        sys.write("class/hwmon/hwmon2/temp1_input", "61000\n");
        assert_eq!(read(sys.path()), Some(61.0));
    }

    #[test]
    fn what_amds_fan_control_adds_is_left_out_where_the_true_one_is_there() {
        let sys = Folder::new("k10temp");
        sys.write("class/hwmon/hwmon0/name", "k10temp");
        sys.write("class/hwmon/hwmon0/temp1_input", "87000");
        sys.write("class/hwmon/hwmon0/temp1_label", "Tctl");
        assert_eq!(read(sys.path()), Some(87.0));
        sys.write("class/hwmon/hwmon0/temp2_input", "60000");
        sys.write("class/hwmon/hwmon0/temp2_label", "Tdie");
        assert_eq!(read(sys.path()), Some(60.0));
    }

    #[test]
    fn zones_help_where_no_driver_does_and_broken_sensors_are_not_believed() {
        let sys = Folder::new("zones");
        sys.write("class/thermal/thermal_zone0/type", "acpitz");
        sys.write("class/thermal/thermal_zone0/temp", "27800");
        sys.write("class/thermal/thermal_zone1/type", "x86_pkg_temp");
        sys.write("class/thermal/thermal_zone1/temp", "48000");
        assert_eq!(read(sys.path()), Some(48.0));
        for broken in ["-274000", "655350000", "hot", ""] {
            sys.write("class/thermal/thermal_zone1/temp", broken);
            assert_eq!(read(sys.path()), Some(27.8), "{broken}");
        }
    }

    #[test]
    fn too_hot_pauses_until_it_is_well_below() {
        let mut limit = Limit::new(80.0);
        let course = [79.9, 80.0, 79.0, 75.1, 75.0, 79.0, 81.0].map(|celsius| limit.pauses(Some(celsius)));
        assert_eq!(course, [false, true, true, true, false, false, true]);
        assert!(!limit.pauses(None));
    }
}
