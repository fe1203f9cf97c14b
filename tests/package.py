#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The package as others meet it: what is installed, what it exports, what builds against it.

    package.py SOURCE_ROOT BUILD_ROOT               an installation into a scratch directory
    package.py SOURCE_ROOT BUILD_ROOT --record      write what is exported to debian/*.symbols
    package.py SOURCE_ROOT BUILD_ROOT --long        also: meson dist, dpkg-buildpackage
"""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

from cases import Skip, case, run_all

LIBRARIES = ["libguestclock", "libguestclock-image", "libguestclock-seal"]
EXAMPLES = {"embed-devices": "libguestclock", "saved-clocks": "libguestclock-image"}
DATA = "tests/data/streams/pc-multifd.qs.xz"


class Tree:
    """An installation of the build, in a directory that goes away."""

    def __init__(self, root, build, scratch):
        self.root, self.build, self.scratch = root, build, scratch
        self.at = os.path.join(scratch, "root")
        run(["meson", "install", "-C", build, "--no-rebuild", "--quiet"],
            env=dict(os.environ, DESTDIR=self.at))

    def one(self, pattern):
        found = glob.glob(os.path.join(self.at, "**", pattern), recursive=True)
        if not found:
            raise AssertionError("%s is not installed" % pattern)
        return found[0]

    def pkg_config(self, *arguments):
        directory = os.path.dirname(self.one("libguestclock.pc"))
        env = dict(os.environ, PKG_CONFIG_PATH=directory)
        prefix = re.search(r"^prefix=(.*)$", read(self.one("libguestclock.pc")), re.M).group(1)
        return run(["pkg-config", "--define-variable=prefix=" + self.at + prefix] +
                   list(arguments), env=env).split()

    def environment(self):
        return dict(os.environ, LD_LIBRARY_PATH=os.path.dirname(self.one("libguestclock.so")))


def run(command, env=None, cwd=None):
    done = subprocess.run(command, text=True, env=env, cwd=cwd, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise AssertionError("%s\n%s" % (" ".join(command), done.stdout[-3000:]))
    return done.stdout


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def recorded(root, library):
    return os.path.join(root, "debian", library + "0.symbols")


def symbols(tree, library):
    """As dpkg-gensymbols writes them: the version node, then the names."""
    text = run(["nm", "-D", "--defined-only", tree.one(library + ".so")])
    found = set()
    for line in text.split("\n"):
        words = line.split()
        if len(words) == 3:
            name, _, version = words[2].replace("@@", "@").partition("@")
            found.add("%s@%s" % (name, version or name))
    return found


def header(library):
    return "%s.so.0 %s0 #MINVER#\n" % (library, library)


@case
def what_is_exported_is_recorded(tree):
    """A symbol that goes away breaks programs; one that comes is a promise."""
    for library in LIBRARIES:
        lines = read(recorded(tree.root, library)).split("\n")
        known = {line.split()[0] for line in lines[1:] if line.strip()}
        now = symbols(tree, library)
        for name in sorted(known - now):
            yield "%s no longer exports %s" % (library, name)
        for name in sorted(now - known):
            yield "%s exports %s, which is not in %s: tests/package.py ... --record" % (
                library, name, os.path.basename(recorded(tree.root, library)))


@case
def examples_build_from_the_installed_package_alone(tree):
    for name, package in EXAMPLES.items():
        program = os.path.join(tree.scratch, name)
        flags = tree.pkg_config("--cflags", "--libs", package)
        run(os.environ.get("CC", "cc").split() +
            ["-std=c11", "-Wall", "-Wextra", "-Werror", "-o", program,
             os.path.join(tree.root, "examples", name + ".c")] + flags, cwd=tree.scratch)
        arguments = [os.path.join(tree.root, DATA)] if package.endswith("image") else []
        run([program] + arguments, env=tree.environment())
    return []


@case
def a_vmm_links_against_no_more_than_libguestclock(tree):
    flags = tree.pkg_config("--libs", "libguestclock")
    for flag in flags:
        if flag.startswith("-l") and flag != "-lguestclock":
            yield "libguestclock.pc asks for " + flag


@case
def the_command_runs_from_where_it_is_installed(tree):
    text = run([tree.one("bin/guestclock"), "inspect", os.path.join(tree.root, DATA)],
               env=tree.environment())
    if "tsc" not in text:
        yield "inspect says:\n" + text


@case
def every_verb_has_its_manual_and_completion(tree):
    text = run([tree.one("bin/guestclock"), "--help"], env=tree.environment())
    verbs = re.findall(r"^  ([a-z]+) {2,}\S", text, re.M)
    if len(verbs) < 8:
        yield "only %d verbs in --help" % len(verbs)
    if not shutil.which("rst2man") and not shutil.which("rst2man.py"):
        raise Skip("no manual pages without rst2man")
    manuals = "".join(read(path) for path in
                      glob.glob(os.path.join(tree.at, "**/man/man*/*"), recursive=True))
    manuals = re.sub(r"\\f[A-Z]", " ", manuals)
    completed = complete(tree)
    for verb in verbs:
        if not re.search(r"\b%s\b" % verb, manuals):
            yield "no manual page speaks of " + verb
        if verb not in completed:
            yield "no completion of " + verb


@case
def zsh_offers_what_the_command_has(tree):
    """The function itself, with zsh's own compadd and _files replaced by such as print."""
    tree.one("zsh/site-functions/_guestclock")
    if not shutil.which("zsh"):
        raise Skip("zsh is not installed")
    text = run([tree.one("bin/guestclock"), "--help"], env=tree.environment())
    verbs = re.findall(r"^  ([a-z]+) {2,}\S", text, re.M)
    yield from ("zsh does not offer the verb " + verb for verb in verbs
                if verb not in zsh(tree, "guestclock", ""))
    for verb in ("rewrite", "inspect"):
        text = run([tree.one("bin/guestclock"), verb, "--help"], env=tree.environment())
        options = re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", text, re.M)
        offered = zsh(tree, "guestclock", verb, "--")
        yield from ("zsh does not offer %s of %s" % (option, verb) for option in options
                    if option not in offered)
    for words, wanted in ((["rewrite", "--gap", ""], "freeze"), (["explain", ""], "long-gap"),
                          (["inspect", ""], "a file")):
        if wanted not in zsh(tree, "guestclock", *words):
            yield "zsh does not offer %s after %s" % (wanted, " ".join(words))


def complete(tree):
    """What the shell offers as a first word."""
    script = "source %s; COMP_WORDS=(guestclock ''); COMP_CWORD=1; " \
             "$(complete -p guestclock | sed 's/.*-F \\([^ ]*\\).*/\\1/'); echo ${COMPREPLY[@]}"
    env = tree.environment()
    env["PATH"] = os.path.dirname(tree.one("bin/guestclock")) + ":" + env["PATH"]
    return run(["bash", "-c", script % tree.one("bash-completion/completions/guestclock")],
               env=env).split()


@case
def apparmor_takes_the_snippets(tree):
    """Each within a profile, compiled, not loaded."""
    snippets = glob.glob(os.path.join(tree.at, "**/guestclock/apparmor/*"), recursive=True)
    if len(snippets) != 2:
        yield "installed of the snippets: %s" % snippets
    parser = shutil.which("apparmor_parser", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not parser:
        raise Skip("apparmor_parser is not installed")
    for snippet in snippets:
        profile = os.path.join(tree.scratch, "profile")
        with open(profile, "w", encoding="utf-8") as file:
            file.write('profile test /nonexistent {\n  #include "%s"\n}\n' % snippet)
        compiled = subprocess.run([parser, "--skip-kernel-load", "--skip-cache", "--stdout",
                                   profile], capture_output=True, check=False)
        if compiled.returncode or not compiled.stdout:
            yield "%s: %s" % (snippet, compiled.stderr.decode(errors="replace"))


def zsh(tree, *words):
    """What zsh would add to the matches for the last of these words."""
    script = "compadd() { [[ $1 == -l ]] && print -l -- $matches || print -l -- $@ }\n" \
             "_files() { print -- 'a file' }\nwords=(\"$@\"); CURRENT=$#; set --; source %s"
    env = tree.environment()
    env["PATH"] = os.path.dirname(tree.one("bin/guestclock")) + ":" + env["PATH"]
    return run(["zsh", "-f", "-c", script % tree.one("zsh/site-functions/_guestclock"), "zsh",
                *words], env=env).split("\n")


def long_dist(tree):
    """The tarball builds by itself."""
    directory = os.path.join(tree.scratch, "dist-build")
    run(["meson", "setup", directory, tree.root])
    run(["meson", "dist", "-C", directory, "--no-tests", "--allow-dirty"])
    archive = glob.glob(os.path.join(directory, "meson-dist", "*.tar.xz"))[0]
    run(["tar", "-xJf", archive, "-C", tree.scratch])
    unpacked = os.path.join(tree.scratch, os.path.basename(archive)[:-len(".tar.xz")])
    run(["meson", "setup", unpacked + "/build", unpacked])
    run(["ninja", "-C", unpacked + "/build", "--quiet"])
    return unpacked


def long_debian(tree, unpacked):
    """The packages build, and have nothing installed that is not in one of them."""
    if not shutil.which("dpkg-buildpackage"):
        raise Skip("dpkg-buildpackage is not installed")
    shutil.rmtree(unpacked + "/build")
    name = "guestclock_" + os.path.basename(unpacked).rpartition("-")[2]
    run(["tar", "-cJf", os.path.join(tree.scratch, name + ".orig.tar.xz"),
         "-C", tree.scratch, os.path.basename(unpacked)])
    if not os.path.isdir(unpacked + "/debian"):
        shutil.copytree(os.path.join(tree.root, "debian"), unpacked + "/debian")
    run(["dpkg-buildpackage", "-us", "-uc", "-b"], cwd=unpacked)
    for package in sorted(glob.glob(os.path.join(tree.scratch, "*.deb"))):
        print(os.path.basename(package))
        print(run(["dpkg-deb", "--contents", package]))


def builds_elsewhere(tree):
    long_debian(tree, long_dist(tree))
    return []


def record(tree):
    for library in LIBRARIES:
        version = re.search(r"version: '([^']+)'", read(tree.root + "/meson.build")).group(1)
        known = {}
        if os.path.exists(recorded(tree.root, library)):
            known = dict(line.split() for line in
                         read(recorded(tree.root, library)).split("\n")[1:] if line.strip())
        with open(recorded(tree.root, library), "w", encoding="utf-8") as file:
            file.write(header(library))
            for name in sorted(symbols(tree, library)):
                file.write(" %s %s\n" % (name, known.get(name, version)))


def main():
    root, build = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="gclk-package-") as scratch:
        tree = Tree(root, build, scratch)
        if "--record" in sys.argv:
            record(tree)
            return 0
        if "--long" in sys.argv:
            case(builds_elsewhere)
        return run_all("package", tree)


if __name__ == "__main__":
    sys.exit(main())
