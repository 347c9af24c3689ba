package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ipsec-secgw is an example in DPDK's source, which Debian's packages leave out: it is compiled from the source of exactly
// the version that is installed, and kept.

//go:embed peers/ipsec-secgw.h
var secgwHeader []byte

// secgwNeeds are the files and programs that are needed to build ipsec-secgw, with Debian's packages.
var secgwNeeds = []struct{ name, debian string }{
	{"/usr/include/dpdk/rte_ethdev.h", "libdpdk-dev"},
	{"pkg-config", "pkg-config"},
	{"cc", "gcc"},
	{"/usr/include/stdlib.h", "libc6-dev"},
	{"apt-get", "apt"},
	{"dpkg-query", "dpkg"},
	{"tar", "tar"},
	{"xz", "xz-utils"},
}

// secgwMissing says in a line what is not there, or nothing.
func secgwMissing(have func(string) bool) string {
	var names, packages []string
	for _, n := range secgwNeeds {
		if !have(n.name) {
			names, packages = append(names, n.name), append(packages, n.debian)
		}
	}
	if names == nil {
		return ""
	}
	return fmt.Sprintf("it needs %s (Debian: apt-get install %s)", strings.Join(names, ", "), strings.Join(packages, " "))
}

// installed reports whether there is such a program or, by an absolute name, such a file.
func installed(name string) bool {
	_, err := exec.LookPath(name)
	if filepath.IsAbs(name) {
		_, err = os.Stat(name)
	}
	return err == nil
}

// dpdkVersion is the version of Debian's source package that the installed libraries are from.
func dpdkVersion(ctx context.Context) (string, error) {
	return runTool(ctx, "", "dpkg-query", "-W", "-f", "${source:Version}", "libdpdk-dev")
}

// buildSecgw returns the program for that version, which it makes unless an earlier run has.
func buildSecgw(ctx context.Context, version string) (path string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no place to keep ipsec-secgw: %w", err)
	}
	cache = filepath.Join(cache, "causeway-bench")
	kept := filepath.Join(cache, fmt.Sprintf("dpdk-%s-%08x", version, crc32.ChecksumIEEE(secgwHeader)))
	path = filepath.Join(kept, "ipsec-secgw")
	if installed(path) {
		return path, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(cache, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintf(os.Stderr, "bench: ipsec-secgw of DPDK %s is fetched and compiled, once: half a minute\n", version)
	archive, err := fetchSource(ctx, dir, "dpdk", version)
	if err != nil {
		return "", fmt.Errorf("the source of DPDK %s cannot be fetched from deb.debian.org: %w", version, err)
	}
	program, err := compileSecgw(ctx, dir, archive)
	if err != nil {
		return "", fmt.Errorf("it cannot be compiled: %w", err)
	}
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return "", err
	}
	return path, os.Rename(program, path)
}

// debianKeys are the keys that apt must find the archive signed with.
const debianKeys = "/usr/share/keyrings/debian-archive-keyring.gpg"

// debianSources is a list of sources for apt: Debian's archive of the release that /etc/os-release names.
func debianSources(osRelease string) (string, error) {
	fields := map[string]string{}
	for line := range strings.Lines(osRelease) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		fields[k] = strings.Trim(v, `"`)
	}
	name := fields["VERSION_CODENAME"]
	if fields["ID"] != "debian" || name == "" {
		return "", fmt.Errorf("/etc/os-release names %q %q, and the source must be that of a Debian release", fields["ID"], name)
	}
	entry := "Types: deb-src\nURIs: http://deb.debian.org/%s\nSuites: %s\nComponents: main\nSigned-By: " + debianKeys + "\n\n"
	return fmt.Sprintf(entry, "debian", name+" "+name+"-updates") + fmt.Sprintf(entry, "debian-security", name+"-security"), nil
}

// fetchSource downloads the source of a package by apt, which checks the signatures, into dir. apt's own lists and
// sources stay as they are; its other settings hold, because the way out may need them.
func fetchSource(ctx context.Context, dir, name, version string) (archive string, err error) {
	osRelease, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	sources, err := debianSources(string(osRelease))
	if err != nil {
		return "", err
	}
	for _, d := range []string{"lists/partial", "archives/partial", "sources", "source"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "sources", "source.sources"), []byte(sources), 0o644); err != nil {
		return "", err
	}
	options := []string{
		"-o", "Dir::Etc::SourceList=/dev/null", "-o", "Dir::Etc::SourceParts=" + filepath.Join(dir, "sources"),
		"-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + dir,
		"-o", "APT::Sandbox::User=", // the sandbox's user may not enter dir
		"-o", "Acquire::http::Timeout=20", "-o", "Acquire::Retries=1", "-q",
	}
	// Unless told so, apt calls a list that it cannot fetch a warning.
	if _, err := runTool(ctx, dir, "apt-get", append(options, "-o", "APT::Update::Error-Mode=any", "update")...); err != nil {
		return "", err
	}
	if _, err := runTool(ctx, filepath.Join(dir, "source"), "apt-get", append(options, "--download-only", "--only-source", "source", name+"="+version)...); err != nil {
		return "", err
	}
	found, _ := filepath.Glob(filepath.Join(dir, "source", "*.orig.tar.*")) // the pattern is good
	if len(found) != 1 {
		return "", fmt.Errorf("the source package %s %s has %d original archives", name, version, len(found))
	}
	return found[0], nil
}

// compileSecgw compiles the example against the installed libraries, as its own Makefile does.
func compileSecgw(ctx context.Context, dir, archive string) (program string, err error) {
	if _, err := runTool(ctx, dir, "tar", "-xf", archive, "--strip-components=2", "--wildcards", "*/examples/ipsec-secgw/*", "*/examples/common/*"); err != nil {
		return "", err
	}
	header := filepath.Join(dir, "ipsec-secgw.h")
	if err := os.WriteFile(header, secgwHeader, 0o600); err != nil {
		return "", err
	}
	flags, errFlags := runTool(ctx, dir, "pkg-config", "--cflags", "libdpdk")
	libs, errLibs := runTool(ctx, dir, "pkg-config", "--libs", "libdpdk")
	if err := errors.Join(errFlags, errLibs); err != nil {
		return "", err
	}
	sources, _ := filepath.Glob(filepath.Join(dir, "ipsec-secgw", "*.c")) // the pattern is good
	program = filepath.Join(dir, "program")
	arguments := append([]string{"-O3", "-w", "-DALLOW_EXPERIMENTAL_API"}, strings.Fields(flags)...)
	arguments = append(append(arguments, "-include", header, "-Icommon", "-o", program), sources...)
	_, err = runTool(ctx, dir, "cc", append(arguments, strings.Fields(libs)...)...)
	return program, err
}

// runTool runs a program in a directory and returns what it prints; an error has the last line of its complaints. All that it
// has started ends with ctx, in order, because compilers have files to remove.
func runTool(ctx context.Context, dir, name string, arguments ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, arguments...)
	var out, complaints bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &complaints
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, lastLine(complaints.Bytes()))
	}
	return strings.TrimSpace(out.String()), nil
}
