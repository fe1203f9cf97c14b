#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""An independent reading of a QEMU device tail, and the smallest possible patcher.

Written against the wire format alone and sharing nothing with the library, so that it can
stand as the other witness in tests, and so that experiments with stock QEMU need no library.

    streampatch.py FILE                         every field of every device, raw
    streampatch.py FILE --json [--only NAME]    the same as JSON
    streampatch.py FILE -o OUT NAME:FIELD=VALUE ...   patch integers ("+N" and "-N" add)

The vmdesc JSON that follows the stream's EOF byte describes every device section in stream
order; the sizes in it place each field. The end of the sections is known (the EOF byte), so
their begin is too, and every header on the way must agree.
"""
import argparse
import json
import struct
import sys

SECTION_FULL, FOOTER, SUBSECTION, VMDESC, EOF = 4, 0x7e, 5, 6, 0
INTEGERS = {1: "b", 2: "h", 4: "i", 8: "q"}


class Malformed(Exception):
    pass


class Field:
    """Where one scalar (or one opaque run of bytes) lies."""

    def __init__(self, name, offset, size, kind):
        self.name, self.offset, self.size, self.kind = name, offset, size, kind

    def is_integer(self):
        return self.size in INTEGERS and not any(
            word in self.kind for word in ("buffer", "bitmap", "struct", "tmp"))

    def is_signed(self):
        return self.kind.startswith("int") or self.kind == "timer"


class Section:
    def __init__(self, name, instance, version, offset):
        self.name, self.instance, self.version, self.offset = name, instance, version, offset
        self.fields = {}

    def add(self, field):
        """A name that is there already (the PIT writes one field twice) gets "#1"."""
        if field.name in self.fields:
            field.name += "#1"
        self.fields[field.name] = field

    def is_named(self, name):
        """By the whole name, or by what stands after the PCI path."""
        return self.name == name or self.name.rpartition("/")[2] == name


def _is_open(field):
    """Whether the struct's inner fields can be walked (lists repeat their keys)."""
    return isinstance(field.get("struct"), dict) and "fields" in field["struct"]


class Image:
    """The device tail of a stream, in the bytes of a file."""

    def __init__(self, data):
        self.data = bytearray(data)
        self.sections = []
        self.eof, self.description = self._find_description()
        self._tile()

    # ---- finding ----

    def _find_description(self):
        """The last `00 06 len {` whose text is JSON with devices and whose tiling fits."""
        at = len(self.data)
        while True:
            at = self.data.rfind(b"{", 0, at)
            if at < 6:
                raise Malformed("no vmdesc")
            if self.data[at - 6] != EOF or self.data[at - 5] != VMDESC:
                continue
            length = struct.unpack_from(">I", self.data, at - 4)[0]
            try:
                found = json.loads(bytes(self.data[at:at + length]))
            except ValueError:
                continue
            if isinstance(found, dict) and "devices" in found:
                return at - 6, found

    @staticmethod
    def _size(node):
        """Wire bytes of a list of fields with its subsections."""
        total = sum(f["size"] * f.get("array_len", 1) for f in node["fields"])
        for sub in node.get("subsections", []):
            total += 2 + len(sub["vmsd_name"]) + 4 + Image._size(sub)
        return total

    # ---- placing ----

    def _tile(self):
        devices = self.description["devices"]
        at = self.eof - sum(5 + 1 + len(d["name"]) + 8 + self._size(d) + 5 for d in devices)
        if at < 0:
            raise Malformed("the sections do not fit before their end")
        for device in devices:
            at = self._section(device, at)
        if at != self.eof:
            raise Malformed("tiling ends at %d, not at %d" % (at, self.eof))

    def _section(self, device, at):
        name = device["name"].encode()
        header = struct.pack(">B", SECTION_FULL)
        number = struct.unpack_from(">I", self.data, at + 1)[0]
        rest = struct.pack(">B", len(name)) + name + struct.pack(">I", device["instance_id"])
        if self.data[at:at + 1] != header or self.data[at + 5:at + 5 + len(rest)] != rest:
            raise Malformed("no header of %s at %d" % (device["name"], at))
        at += 5 + len(rest)
        version = struct.unpack_from(">I", self.data, at)[0]
        at += 4
        section = Section(device["name"], device["instance_id"], version, at)
        at = self._fields(section, device, "", at)
        if self.data[at:at + 5] != struct.pack(">BI", FOOTER, number):
            raise Malformed("no footer of %s at %d" % (device["name"], at))
        self.sections.append(section)
        return at + 5

    def _fields(self, section, node, prefix, at):
        for field in node["fields"]:
            name = prefix + field["name"]
            if "index" in field:
                name += "[%d]" % field["index"]
            count = field.get("array_len", 1)
            for i in range(count):
                one = name + ("[%d]" % i if count > 1 else "")
                if _is_open(field):
                    end = self._fields(section, field["struct"], one + ".", at)
                    if end != at + field["size"]:
                        raise Malformed("%s of %s is %d bytes, described as %d" %
                                        (one, section.name, end - at, field["size"]))
                elif count > 64 and field["size"] <= 8:
                    # a long array is one run of bytes
                    section.add(Field(name, at, field["size"] * count, "buffer"))
                    at += field["size"] * count
                    break
                else:
                    section.add(Field(one, at, field["size"], field["type"]))
                at += field["size"]
        for sub in node.get("subsections", []):
            at = self._subsection(section, sub, prefix, at)
        return at

    def _subsection(self, section, sub, prefix, at):
        name = sub["vmsd_name"].encode()
        header = struct.pack(">BB", SUBSECTION, len(name)) + name
        if self.data[at:at + len(header)] != header:
            raise Malformed("no subsection %s at %d" % (sub["vmsd_name"], at))
        at += len(header) + 4
        return self._fields(section, sub, prefix + sub["vmsd_name"] + ":", at)

    # ---- reading and writing ----

    def find(self, name, instance=None):
        """Sections of that name (all, or the instance)."""
        return [s for s in self.sections if s.is_named(name) and
                (instance is None or s.instance == instance)]

    def has(self, name, field):
        return any(field in s.fields for s in self.find(name))

    def field(self, name, field, instance=None):
        for section in self.find(name, instance):
            if field in section.fields:
                return section.fields[field]
        raise KeyError("%s:%s" % (name, field))

    def get_at(self, field):
        raw = bytes(self.data[field.offset:field.offset + field.size])
        if not field.is_integer():
            return raw
        return int.from_bytes(raw, "big", signed=field.is_signed())

    def get(self, name, field, instance=None):
        return self.get_at(self.field(name, field, instance))

    def set(self, name, field, value, instance=None):
        place = self.field(name, field, instance)
        if isinstance(value, int):
            value = (value & (1 << 8 * place.size) - 1).to_bytes(place.size, "big")
        if len(value) != place.size:
            raise ValueError("%s:%s has %d bytes" % (name, field, place.size))
        self.data[place.offset:place.offset + place.size] = value

    def add(self, name, field, delta, instance=None):
        self.set(name, field, self.get(name, field, instance) + delta, instance)

    def armed_timers(self):
        """Every field of type timer that is armed: (section, field, expiry)."""
        return [(section, field, self.get_at(field)) for section in self.sections
                for field in section.fields.values()
                if field.kind == "timer" and self.get_at(field) != -1]

    def write(self, path):
        with open(path, "wb") as out:
            out.write(self.data)


def read(path):
    with open(path, "rb") as stream:
        return Image(stream.read())


def as_json(image, only=None):
    """[{section, instance, version, offset, fields: {name: "decimal" or hex bytes}}]"""
    found = []
    for section in image.sections:
        if only and not section.is_named(only):
            continue
        fields = {}
        for field in section.fields.values():
            value = image.get_at(field)
            fields[field.name] = str(value) if isinstance(value, int) else value.hex()
        found.append({"section": section.name, "instance": section.instance,
                      "version": section.version, "offset": section.offset,
                      "fields": fields})
    return found


def _patch(image, request):
    """NAME:FIELD=VALUE, VALUE an integer; with a sign it is added. NAME@N: instance N."""
    place, _, text = request.rpartition("=")
    name, _, field = place.partition(":")
    name, _, instance = name.partition("@")
    instance = int(instance) if instance else None
    value = int(text, 0)
    if text[0] in "+-":
        value += image.get(name, field, instance)
    image.set(name, field, value, instance)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file")
    parser.add_argument("patch", nargs="*", metavar="NAME:FIELD=VALUE")
    parser.add_argument("-o", metavar="OUT", dest="out")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", metavar="NAME")
    args = parser.parse_intermixed_args()
    image = read(args.file)
    if args.out:
        for request in args.patch:
            _patch(image, request)
        image.write(args.out)
    elif args.json:
        json.dump(as_json(image, args.only), sys.stdout, indent=1)
        print()
    else:
        for section in as_json(image, args.only):
            print("%(section)s instance %(instance)d version %(version)d at %(offset)d"
                  % section)
            for name, value in section["fields"].items():
                print("    %-44s %s" % (name, value if len(value) <= 64
                                        else value[:60] + "..."))


if __name__ == "__main__":
    main()
