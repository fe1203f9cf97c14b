# SPDX-License-Identifier: MIT
"""What an image must say, computed from its bytes without the library.

The bytes come from streampatch; what they mean stands here a second time: which counter a
formula gives at the instant of the stop, which record a field belongs to. `guestclock
inspect` is compared with it, value by value.

    expected_state(image, facts)    the "state" of `inspect --json`, numbers as numbers
    expected_rows(image, facts)     the table of the text: reads, rate, next, period
    differences(expected, found)    ["path: expected X, found Y"]

facts: what only the one who started the guest knows: accel, mib, and where the reading needs
them, rtc_clock, icount_shift, captured_ns (the host's clock) and captured_coarse (when that is
an upper limit only), catches_up, name and uuid.
"""
import base64
import calendar
import datetime
import re
import time

PIT_HZ = 1193182
PM_HZ = 3579545
S_NS = 10**9
MASK64 = (1 << 64) - 1
SINCE_1973_NS = 10**17		# below, an instant counts from the guest's start

RW_NAMES = ["none", "low", "high", "word", "word_high"]
HPET_BITS = {0: "enable", 1: "legacy"}
HPET_TIMER_BITS = {1: "level", 2: "interrupt_enable", 3: "periodic", 4: "periodic_capable",
                   5: "size_64_capable", 6: "value_set", 8: "force_32", 14: "fsb_enable",
                   15: "fsb_capable"}
LVT_BITS = {12: "delivery_status", 16: "masked", 17: "periodic", 18: "tsc_deadline"}
PIT_STATUS_BITS = {0: "bcd", 6: "null_count", 7: "out"}
RUN_STATES = {"running": "running", "paused": "paused", "save-vm": "paused"}
# subsections of cpu that hold one or more MSRs: name, ((field, member), ...)
CPU_MSRS = {
    "steal_time_msr": {"env.steal_time_msr": "steal_time_msr"},
    "async_pf_msr": {"env.async_pf_en_msr": "async_pf_en_msr"},
    "async_pf_int_msr": {"env.async_pf_int_msr": "async_pf_int_msr"},
    "async_pv_eoi_msr": {"env.pv_eoi_en_msr": "pv_eoi_msr"},
    "poll_control_msr": {"env.poll_control_msr": "poll_control_msr"},
    "msr_hyperv_time": {"env.msr_hv_tsc": "hv_reference_tsc_msr"},
    "msr_hyperv_runtime": {"env.msr_hv_runtime": "hv_vp_runtime_100ns"},
    "msr_hyperv_reenlightenment": {
        "env.msr_hv_reenlightenment_control": "hv_reenlightenment_msr",
        "env.msr_hv_tsc_emulation_control": "hv_tsc_emulation_control_msr",
        "env.msr_hv_tsc_emulation_status": "hv_tsc_emulation_status_msr"},
    "msr_hyperv_stimer": dict(
        [("env.msr_hv_stimer_config[%d]" % n, "stimer%d_config" % n) for n in range(4)] +
        [("env.msr_hv_stimer_count[%d]" % n, "stimer%d_count" % n) for n in range(4)]),
}


def bit_names(value, names):
    return [name for bit, name in sorted(names.items()) if value >> bit & 1]


def rfc3339(ns):
    when = datetime.datetime.fromtimestamp(ns // S_NS, datetime.timezone.utc)
    return when.strftime("%Y-%m-%dT%H:%M:%S") + ".%09dZ" % (ns % S_NS)


class Guest:
    """An image with names for its parts."""

    def __init__(self, image, facts):
        self.image, self.facts = image, facts
        self.axis = image.get("timer", "cpu_clock_offset")
        self.ticks = image.get("timer", "cpu_ticks_offset")
        self.icount = image.has("timer", "timer/icount:qemu_icount")
        if self.icount:		# a fixed shift is not in the stream: -icount shift=N
            self.axis = image.get("timer", "timer/icount:qemu_icount_bias") + \
                (image.get("timer", "timer/icount:qemu_icount") << facts["icount_shift"])
        self.kvm = facts["accel"] == "kvm"
        self.cpus = image.find("cpu")
        self.apics = image.find("apic")

    def value(self, section, field):
        return self.image.get_at(section.fields[field])

    def get(self, name, field):
        return self.image.get(name, field)

    def maybe(self, name, field):
        return self.image.get(name, field) if self.image.has(name, field) else None

    # ---- clocks ----

    def tsc(self, cpu):
        """What RDTSC reads at the stop."""
        if self.kvm:
            return self.value(cpu, "env.tsc")
        emulated = self.axis if self.icount else self.ticks
        return (emulated + self.value(cpu, "env.tsc_offset")) & MASK64

    def tsc_hz(self, cpu):
        """None: nothing says it."""
        if self.icount:
            return S_NS
        khz = cpu.fields.get("cpu/tsc_khz:env.tsc_khz")
        return self.image.get_at(khz) * 1000 if khz and self.kvm else None

    # ---- PIT ----

    def channel(self, n, field):
        return self.get("i8254", "channels[%d].%s" % (n, field))

    def pit_count(self, n):
        """The counter of a channel at the stop."""
        count = self.channel(n, "count")
        d = (self.axis - self.channel(n, "count_load_time")) * PIT_HZ // S_NS
        mode = self.channel(n, "mode")
        if mode == 2:
            return count - d % count
        if mode == 3:
            return count - 2 * d % count
        return (count - d) & 0xffff

    def pit_transition(self):
        """When QEMU looks at channel 0 again; the copy that is loaded last wins."""
        last = self.maybe("i8254", "channels[0].next_transition_time#1")
        return self.channel(0, "next_transition_time") if last is None else last

    def pit_next(self):
        """When channel 0's OUT next rises, or should have: one count after the reload, or at it
        (mode 3). A guest may stop before QEMU has come to what is due."""
        count, begin = self.channel(0, "count"), self.channel(0, "count_load_time")
        late = {2: 1, 3: 0}[self.channel(0, "mode")]
        past, transition = self.axis, self.pit_transition()
        if 0 <= transition <= past:
            past = transition - 1
        k = max(1, (past - begin) * PIT_HZ // S_NS // count - 1)
        while begin + -(-(k * count + late) * S_NS // PIT_HZ) <= past:
            k += 1
        return begin + -(-(k * count + late) * S_NS // PIT_HZ)

    # ---- HPET ----

    def hpet_counter(self):
        if not self.get("hpet", "config") & 1:
            return self.get("hpet", "hpet_counter")
        offset = self.maybe("hpet", "hpet/offset:hpet_offset")
        if offset is None:
            return self.get("hpet", "hpet_counter")
        return (self.axis + signed(offset)) // 10 & MASK64

    # ---- LAPIC ----

    def lapic_count(self, apic):
        """The current count of an emulated LAPIC timer."""
        shift, initial = self.value(apic, "count_shift"), self.value(apic, "initial_count")
        d = (self.axis - self.value(apic, "initial_count_load_time")) >> shift
        if self.value(apic, "lvt[0]") >> 17 & 1:
            return initial - d % (initial + 1)
        return max(0, initial - d)

    # ---- RTC ----

    def rtc_axis(self):
        at = self.get("mc146818rtc", "last_update")
        clock = self.facts.get("rtc_clock", "host")
        assert (clock == "host") == (abs(at) >= SINCE_1973_NS), "RTC on %s at %d" % (clock, at)
        return {"host": "realtime", "vm": "guest", "rt": "monotonic"}[clock]

    def rtc_ns(self, now):
        """The time that the RTC shows at `now` on its own clock, ns since 1970."""
        return (self.get("mc146818rtc", "base_rtc") * S_NS + now -
                self.get("mc146818rtc", "last_update") + self.get("mc146818rtc", "offset"))

    # ---- PM timer ----

    def pm_section(self):
        """(section, prefix of its ACPI registers)."""
        for name, prefix in (("piix4_pm", "ar."), ("ICH9LPC", "pm.acpi_regs.")):
            if self.image.find(name):
                return name, prefix
        return None, None


def signed(value):
    return value - (1 << 64) if value >> 63 else value


# ---- the state ----

def guest_record(g):
    data = g.image.data
    record = {"accelerator": {"kvm": "kvm", "tcg": "tcg_icount" if g.icount else "tcg"}
              [g.facts["accel"]], "ram_bytes": g.facts["mib"] << 20}
    start = data.find(b"QEVM\0\0\0\x03") + 8
    if data[start] == 7:
        length = int.from_bytes(data[start + 1:start + 5], "big")
        record["machine"] = data[start + 5:start + 5 + length].decode()
    for section in g.image.find("globalstate"):
        name = bytes(data[section.offset + 4:section.offset + 104]).split(b"\0")[0].decode()
        record["run_state"] = RUN_STATES[name]
    for name in ("name", "uuid"):
        if name in g.facts:
            record[name] = g.facts[name]
    return record


def tsc_record(g, i, cpu):
    record = {"vcpu": i, "value_ticks": g.tsc(cpu), "aux": g.value(cpu, "env.tsc_aux")}
    if not g.kvm:
        record["emulated_offset_ticks"] = signed(g.value(cpu, "env.tsc_offset"))
    if g.tsc_hz(cpu):
        record["frequency_hz"] = g.tsc_hz(cpu)
    for field, member, sign in (
            ("cpu/msr_tsc_adjust:env.tsc_adjust", "adjust_ticks", True),
            ("cpu/msr_tscdeadline:env.tsc_deadline", "deadline_ticks", False),
            ("cpu/amd_tsc_scale_msr:env.amd_tsc_scale_msr", "amd_ratio_msr", False)):
        if field in cpu.fields:
            value = g.value(cpu, field)
            record[member] = signed(value) if sign else value
    return record


def vcpu_record(g, i, cpu):
    record = {"vcpu": i, "mp_state": g.value(cpu, "env.mp_state")}
    for member in ("system_time_msr", "wall_clock_msr"):
        record[member] = g.value(cpu, "env." + member)
    for sub, fields in CPU_MSRS.items():
        for field, member in fields.items():
            path = "cpu/%s:%s" % (sub, field)
            if path in cpu.fields:
                record[member] = g.value(cpu, path)
    return record


def words(raw):
    """Eight big-endian words as the register page has them."""
    turned = b"".join(raw[i:i + 4][::-1] for i in range(0, len(raw), 4))
    return base64.b64encode(turned).decode()


def lapic_record(g, i, apic):
    lvt = g.value(apic, "lvt[0]")
    record = {"vcpu": i, "dialect": "qemu", "in_kernel": g.kvm, "lvt_timer": lvt,
              "lvt_timer_names": bit_names(lvt, LVT_BITS)}
    for field, member in {"apicbase": "apic_base", "spurious_vec": "spurious_vector",
                          "initial_count": "initial_count", "divide_conf": "divide_config",
                          "count_shift": "divide_shift", "next_time": "next_time_ns",
                          "initial_count_load_time": "load_time_ns",
                          "timer_expiry": "expiry_ns"}.items():
        record[member] = g.value(apic, field)
    for name in ("isr", "tmr", "irr"):
        first = apic.fields.get(name + "[0]") or apic.fields[name]
        record[name] = words(bytes(g.image.data[first.offset:first.offset + 32]))
    return record


def pit_record(g):
    refresh = g.maybe("pcspk", "dummy_refresh_clock")
    record = {"dialect": "qemu", "in_kernel": g.kvm,
              "irq_disabled": bool(g.channel(0, "irq_disabled"))}
    if refresh is not None:
        record["dummy_refresh_clock"] = bool(refresh)
        record["speaker_data"] = bool(g.get("pcspk", "data_on"))
    record["channels"] = []
    for n in range(3):
        channel = {name: g.channel(n, name) for name in
                   ("count", "mode", "latched_count", "count_latched", "status", "write_latch")}
        for name in ("bcd", "gate", "status_latched"):
            channel[name] = bool(g.channel(n, name))
        for name in ("rw_mode", "read_state", "write_state"):
            channel[name] = RW_NAMES[g.channel(n, name)]
        channel["load_time_ns"] = g.channel(n, "count_load_time")
        channel["next_transition_ns"] = g.channel(n, "next_transition_time")
        channel["status_names"] = bit_names(channel["status"], PIT_STATUS_BITS)
        record["channels"].append(channel)
    record["channels"][0]["next_transition_ns"] = g.pit_transition()
    return record


def rtc_record(g):
    section = g.image.find("mc146818rtc")[0]
    cmos = section.fields["cmos_data"]
    record = {"dialect": "qemu", "axis": g.rtc_axis(),
              "cmos": base64.b64encode(g.image.get_at(cmos)).decode()}
    for field, member in {"cmos_index": "cmos_index", "irq_coalesced": "owed_ticks",
                          "period": "period_clocks", "base_rtc": "base_s",
                          "last_update": "base_at_ns", "offset": "offset_ns",
                          "periodic_timer": "periodic_expiry_ns",
                          "next_periodic_time": "next_periodic_ns",
                          "update_timer": "update_expiry_ns",
                          "next_alarm_time": "next_alarm_ns"}.items():
        record[member] = g.value(section, field)
    sub = "mc146818rtc/irq_reinject_on_ack_count:irq_reinject_on_ack_count"
    if sub in section.fields:
        record["reinject_on_ack"] = g.value(section, sub)
    if record["owed_ticks"] or record.get("reinject_on_ack") or g.facts.get("catches_up"):
        record["catches_up"] = True
    if record["axis"] == "realtime":
        for member in ("base_at", "periodic_expiry", "next_periodic", "update_expiry",
                       "next_alarm"):
            ns = record[member + "_ns"]
            if ns != -1:
                record[member + "_rfc3339"] = rfc3339(ns)
    return record


def hpet_record(g):
    config = g.get("hpet", "config")
    record = {"dialect": "qemu", "period_fs": 10000000, "config": config,
              "config_names": bit_names(config, HPET_BITS), "isr": g.get("hpet", "isr"),
              "counter_ticks": g.get("hpet", "hpet_counter"), "timers": []}
    for sub, member in (("hpet/rtc_irq_level:rtc_irq_level", "rtc_irq_level"),
                        ("hpet/offset:hpet_offset", "offset_ns")):
        value = g.maybe("hpet", sub)
        if value is not None:
            record[member] = signed(value) if member == "offset_ns" else value
    for n in range(g.get("hpet", "num_timers")):
        def get(field):
            return g.get("hpet", "timer[%d].%s" % (n, field))
        record["timers"].append({
            "index": get("tn"), "config": get("config"),
            "config_names": bit_names(get("config"), HPET_TIMER_BITS),
            "comparator_ticks": get("cmp"), "period_ticks": get("period"),
            "fsb_route": get("fsb"), "wrap": bool(get("wrap_flag")),
            "expiry_ns": get("qemu_timer")})
    return record


def pm_timer_record(g):
    name, prefix = g.pm_section()
    return {"bits": 24, "expiry_ns": g.get(name, prefix + "tmr.timer"),
            "overflow_ticks": g.get(name, prefix + "tmr.overflow_time"),
            "status": g.get(name, prefix + "pm1.evt.sts"),
            "enable": g.get(name, prefix + "pm1.evt.en")}


def i6300esb_record(g):
    record = {name: bool(g.get("i6300esb_wdt", name)) for name in
              ("enabled", "reboot_enabled", "free_run", "locked")}
    for field, member in {"stage": "stage", "clock_scale": "clock_scale",
                          "int_type": "interrupt_type", "timer": "expiry_ns",
                          "timer1_preload": "preload1", "timer2_preload": "preload2"}.items():
        record[member] = g.get("i6300esb_wdt", field)
    return record


OWN_TIMERS = {"mc146818rtc": ("periodic_timer", "update_timer"), "hpet": ("qemu_timer",),
              "piix4_pm": ("ar.tmr.timer",), "ICH9LPC": ("pm.acpi_regs.tmr.timer",),
              "i6300esb_wdt": ("timer",), "apic": ("timer_expiry",)}
WATCHDOGS = {("ib700_wdt", "timer"), ("ICH9LPC", "pm.ich9_pm/tco:tco_regs.tco_timer")}


def other_timers(g):
    """Armed timers of the devices that the state has no record of."""
    found = []
    for section, field, expiry in g.image.armed_timers():
        base = section.name.rpartition("/")[2]
        if any(field.name.endswith(own) for own in OWN_TIMERS.get(base, ())):
            continue
        axis = "realtime" if expiry >= SINCE_1973_NS else "guest"
        record = {"name": "%s#%d/%s" % (section.name, section.instance, field.name),
                  "kind": "watchdog" if (base, field.name) in WATCHDOGS else "other",
                  "axis": axis, "expiry_ns": expiry}
        if axis == "realtime":
            record["expiry_rfc3339"] = rfc3339(expiry)
        found.append(record)
    return found


def expected_state(image, facts):
    g = Guest(image, facts)
    state = {
        "n_vcpus": len(g.cpus), "guest": guest_record(g),
        "tsc": [tsc_record(g, i, cpu) for i, cpu in enumerate(g.cpus)],
        "vcpu": [vcpu_record(g, i, cpu) for i, cpu in enumerate(g.cpus)],
        "lapic": [lapic_record(g, i, apic) for i, apic in enumerate(g.apics)],
        "virtual_clock": {"clock_ns": g.axis, "host_ticks": g.ticks},
    }
    if g.icount:
        state["virtual_clock"]["icount_bias_ns"] = g.get("timer", "timer/icount:qemu_icount_bias")
        state["virtual_clock"]["icount"] = g.get("timer", "timer/icount:qemu_icount")
        state["virtual_clock"]["cpu_clock_ns"] = g.get("timer", "cpu_clock_offset")
    if image.find("kvmclock"):
        reliable = g.maybe("kvmclock", "kvmclock/clock_is_reliable:clock_is_reliable")
        state["kvmclock"] = {"clock_ns": g.get("kvmclock", "clock"), "reliable": bool(reliable)}
    for section, member, record in (("i8254", "pit", pit_record), ("hpet", "hpet", hpet_record),
                                    ("mc146818rtc", "rtc", rtc_record),
                                    ("i6300esb_wdt", "i6300esb", i6300esb_record)):
        if image.find(section):
            state[member] = record(g)
    if g.pm_section()[0]:
        state["pm_timer"] = pm_timer_record(g)
    timers = other_timers(g)
    if timers:
        state["timers"] = timers
    return state


def numbers(tree):
    """JSON's decimal texts as numbers; other texts stand."""
    if isinstance(tree, dict):
        return {key: numbers(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [numbers(value) for value in tree]
    if isinstance(tree, str) and re.fullmatch(r"-?[0-9]+", tree):
        return int(tree)
    return tree


def differences(expected, found, path=""):
    """Where two trees differ: both ways, so that nothing is left out or added."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return [text for key in sorted(set(expected) | set(found))
                for text in differences(expected.get(key, "nothing"),
                                        found.get(key, "nothing"),
                                        path + "." + key if path else key)]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [text for i, pair in enumerate(zip(expected, found))
                for text in differences(*pair, "%s[%d]" % (path, i))]
    same = expected == found and isinstance(expected, bool) == isinstance(found, bool)
    return [] if same else ["%s: expected %r, found %r" % (path, expected, found)]


# ---- the source's own fields ----

def source_differences(image, source):
    """Every raw value that `inspect` shows, against the bytes. Second: how many."""
    found, n = [], 0
    for key, fields in source.items():
        name, _, instance = key.partition("#")
        for field, value in fields.items():
            n += 1
            raw = find_raw(image, name, int(instance or 0), field)
            if raw is None:
                found.append("%s %s: not in the bytes" % (key, field))
                continue
            shown = bytes.fromhex(value) if isinstance(value, str) and len(raw) > 8 else \
                (int(value) & (1 << 8 * len(raw)) - 1).to_bytes(len(raw), "big")
            if shown != raw:
                found.append("%s %s: %r, the bytes are %s" % (key, field, value, raw.hex()))
    return found, n


def find_raw(image, name, instance, field):
    """The bytes of NAME or NAME/SUBSECTION's field."""
    for section in image.sections:
        if section.instance != instance:
            continue
        prefix = ""
        if section.name != name:
            if not name.startswith(section.name.rpartition("/")[2] + "/"):
                continue
            prefix = name + ":"
        for at in (prefix + field, prefix + field + "[0]"):
            place = section.fields.get(at)
            if place:
                size = place.size * sum(other.startswith(prefix + field + "[") for other in
                                        section.fields) if at.endswith("[0]") and \
                    not field.endswith("]") else place.size
                return bytes(image.data[place.offset:place.offset + size])
    return None


# ---- the table of the text ----

class Row:
    """What a line must say: reads as text, ns until the next interrupt, its period."""

    def __init__(self, reads, next_ns=None, period_ns=None):
        self.reads, self.next_ns, self.period_ns = reads, next_ns, period_ns


def grouped(n):
    return "{:,}".format(n).replace(",", " ")


def spoken_time(ns):
    when = datetime.datetime.fromtimestamp(ns // S_NS, datetime.timezone.utc)
    return when.strftime("%a %Y-%m-%d %H:%M:%S") + ".%03d" % (ns % S_NS // 10**6)


def rtc_row(g):
    """On the guest's axis to the ns; on the host's as well as the capture is known."""
    axis = g.rtc_axis()
    now = g.axis if axis == "guest" else g.facts.get("captured_ns")
    if axis == "monotonic" or now is None:
        return Row("(needs the instant of the capture)")
    if axis == "realtime" and g.facts.get("captured_coarse"):
        return Row(spoken_time(g.rtc_ns(now)))
    reg_b = g.image.get_at(g.image.find("mc146818rtc")[0].fields["cmos_data"])[11]
    period, nexts = None, []
    if reg_b & 0x40:
        clocks = g.get("mc146818rtc", "period")
        period = clocks * S_NS / 32768
        at = g.get("mc146818rtc", "next_periodic_time")
        while at <= now:
            at += period
        nexts.append(at)
    if reg_b & 0x20:
        nexts.append(g.get("mc146818rtc", "next_alarm_time"))
    if reg_b & 0x10:
        nexts.append(now + S_NS - g.rtc_ns(now) % S_NS)
    return Row(spoken_time(g.rtc_ns(now)), min(nexts) - now if nexts else None, period)


def pit_rows(g):
    rows = {}
    for n in (0, 2):
        if g.channel(n, "mode") == 255:
            continue
        row = Row("%s of %s, mode %d" % (grouped(g.pit_count(n)),
                                         grouped(g.channel(n, "count")), g.channel(n, "mode")))
        if n == 0:
            if not g.channel(0, "irq_disabled"):
                row.period_ns = g.channel(0, "count") * S_NS / PIT_HZ
                row.next_ns = g.pit_next() - g.axis
        rows["pit[%d]" % n] = row
    return rows


def hpet_rows(g):
    rows = {"hpet": Row(grouped(g.hpet_counter()) + " ticks")}
    for n in range(g.get("hpet", "num_timers")):
        config = g.get("hpet", "timer[%d].config" % n)
        expiry = g.get("hpet", "timer[%d].qemu_timer" % n)
        if config & 4 and expiry != -1 and g.get("hpet", "config") & 1:
            row = Row("until " + grouped(g.get("hpet", "timer[%d].cmp" % n)), expiry - g.axis)
            if config & 8:
                row.period_ns = g.get("hpet", "timer[%d].period" % n) * 10
            rows["hpet[%d]" % n] = row
    return rows


def lapic_row(g, i, apic):
    lvt, initial = g.value(apic, "lvt[0]"), g.value(apic, "initial_count")
    if lvt >> 17 & 3 == 2:
        deadline = g.cpus[i].fields.get("cpu/msr_tscdeadline:env.tsc_deadline")
        if not deadline:
            return Row("idle" if lvt & 0x10000 else "no deadline")
        at, hz = g.image.get_at(deadline), g.tsc_hz(g.cpus[i])
        return Row("until tsc " + grouped(at),
                   (at - g.tsc(g.cpus[i])) * S_NS / hz if hz else None)
    if not initial:
        return Row("idle")
    unit = 1 << g.value(apic, "count_shift")
    period = (initial + (0 if g.kvm else 1)) * unit if lvt >> 17 & 1 else None
    if g.kvm:
        return Row("of " + grouped(initial), None, period)
    expiry = g.value(apic, "timer_expiry")
    return Row("%s of %s" % (grouped(g.lapic_count(apic)), grouped(initial)),
               expiry - g.axis if expiry != -1 else None, period)


def i6300esb_row(g):
    if not g.get("i6300esb_wdt", "enabled"):
        return Row("off")
    stage = g.get("i6300esb_wdt", "stage")
    return Row("stage %d" % stage, g.get("i6300esb_wdt", "timer") - g.axis)


def short_name(name):
    """Without the place of a device behind a bus."""
    return name.partition("/")[2] if name.count("/") >= 2 else name


def timer_rows(g):
    rows = {}
    on_axis = sorted((t for t in other_timers(g) if t["axis"] == "guest"),
                     key=lambda t: t["expiry_ns"])
    for timer in on_axis[:6]:
        rows[short_name(timer["name"])] = Row("armed", timer["expiry_ns"] - g.axis)
    if len(on_axis) > 6:
        rows["(other timers)"] = Row("%d more" % (len(on_axis) - 6))
    return rows


def expected_rows(image, facts):
    """For guests of at most four vCPUs: each has lines of its own."""
    g = Guest(image, facts)
    rows = {"tsc[%d]" % i: Row(grouped(g.tsc(cpu)) + " ticks") for i, cpu in enumerate(g.cpus)}
    if image.find("kvmclock"):
        rows["kvmclock"] = Row(g.get("kvmclock", "clock"))
    rows["virtual_clock"] = Row(g.axis)
    rows["rtc"] = rtc_row(g)
    rows.update(pit_rows(g))
    if image.find("hpet"):
        rows.update(hpet_rows(g))
    for i, apic in enumerate(g.apics):
        rows["lapic[%d]" % i] = lapic_row(g, i, apic)
    name, prefix = g.pm_section()
    if name:
        pm = (g.axis * PM_HZ // S_NS) & 0xffffff
        rows["pm_timer"] = Row(grouped(pm) + " ticks")
        if g.get(name, prefix + "pm1.evt.en") & 1:
            rows["pm_timer"].next_ns = \
                -(-g.get(name, prefix + "tmr.overflow_time") * S_NS // PM_HZ) - g.axis
    if image.find("i6300esb_wdt"):
        rows["i6300esb"] = i6300esb_row(g)
    rows.update(timer_rows(g))
    return rows


UNITS = {"ns": 1, "us": 1000, "ms": 10**6, "s": S_NS, "min": 60 * S_NS, "h": 3600 * S_NS,
         "d": 86400 * S_NS}
SPAN = re.compile(r"(\d+)(?:\.(\d+))? ?(ns|us|ms|s|min|h|d)\b")


def span_of(text):
    """A duration as it is written: (ns, ns of its last digit)."""
    total, last = 0, 1
    for whole, digits, unit in SPAN.findall(text):
        last = UNITS[unit] // 10**len(digits or "")
        total += int(whole) * UNITS[unit] + int(digits or "0") * last
    return total, last


def table_of(text):
    """The table in the text of `inspect`: {clock: (reads, rate, interrupts)}."""
    rows, heading = {}, None
    for line in text.split("\n"):
        if line.startswith("CLOCK"):
            heading = line
            continue
        if heading is None:
            continue
        if not line.strip():
            break
        interrupts = heading.index("INTERRUPTS")
        words_ = re.split(r"  +", line[:interrupts].rstrip())
        rate = words_[2] if len(words_) > 2 else ""
        rows[words_[0]] = (words_[1] if len(words_) > 1 else "", rate, line[interrupts:].strip())
    return rows


def shown(text, ns):
    """Whether a rounded span is that many ns."""
    at, digit = span_of(text)
    return abs(at - ns) <= digit // 2 + digit // 100 + 1	# two roundings


def row_differences(expected, found):
    """The table of the text against what it must say."""
    wrong = ["%s: a row %s" % (name, "missing" if name in expected else "too many")
             for name in sorted(set(expected) ^ set(found))]
    for name in set(expected) & set(found):
        row, (reads, _, interrupts) = expected[name], found[name]
        if isinstance(row.reads, int):
            same = shown(reads, row.reads)
        else:
            same = reads == row.reads or name == "i6300esb" and reads.startswith(row.reads)
        if not same:
            wrong.append("%s reads %r, expected %r" % (name, reads, row.reads))
        wrong += interrupt_differences(name, row, interrupts)
    return wrong


def interrupt_differences(name, row, text):
    soon = re.search(r"(in|overdue by) ([0-9][^,;]*)", text)
    every = re.search(r"every ([0-9][^,;]*)", text)
    wrong = []
    for what, match, ns in (("next", soon, row.next_ns), ("period", every, row.period_ns)):
        if (match is None) != (ns is None):
            wrong.append("%s: %s in %r, expected %s ns" % (name, what, text, ns))
        elif match and not shown(match.group(match.lastindex), abs(ns)):
            wrong.append("%s: %s in %r, expected %d ns" % (name, what, text, ns))
    return wrong


def rtc_registers(image):
    """Seconds since 1970 as the saved registers say."""
    cmos = image.get_at(image.find("mc146818rtc")[0].fields["cmos_data"])
    def number(i):
        return int("%x" % cmos[i])
    return calendar.timegm((number(0x32) * 100 + number(9), number(8), number(7), number(4),
                            number(2), number(0)))


def local_offset_s():
    """What localtime adds to UTC here and now."""
    return calendar.timegm(time.localtime()) - calendar.timegm(time.gmtime())
