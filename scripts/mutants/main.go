// Command mutants asks whether the tests can fail. Each mutant is a patch that breaks the product on
// purpose, and names the test that must notice. In a copy of the tree, each is applied, built, tested
// and taken back. It is killed when the named test ran and failed; it survived when the test passed;
// it is broken, which is as bad, when it does not apply, does not compile, names a test that does not
// exist, or names one that fails without it.
//
// Usage: go run ./scripts/mutants [NAME...]
//
// A mutant is a file scripts/mutants/NAME.patch that git apply understands, beginning with
//
//	Breaks: one sentence, what is broken
//	Package: ./pipeline/wire
//	Run: ^TestDecTTL4$
//
// where Run is the expression for go test -run. A mutant that makes the test loop for ever is killed by
// a time limit; Within: 20s makes it shorter than the usual three minutes. The exit status is 0 only if all are killed.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// testLimit bounds one run of a test, unless the mutant has a limit of its own.
const testLimit = 3 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string) (allKilled bool, err error) {
	mutants, err := load("scripts/mutants", names)
	if err != nil {
		return false, err
	}
	tree, err := os.MkdirTemp("", "causeway-mutants-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(tree)
	if out, err := exec.CommandContext(ctx, "scripts/copy-tree.sh", tree).CombinedOutput(); err != nil {
		return false, fmt.Errorf("copying the tree: %w\n%s", err, out)
	}

	judge := judge{ctx: ctx, tree: tree, healthy: map[string]error{}}
	count := map[verdict]int{}
	for _, m := range mutants {
		start := time.Now()
		v, why := judge.try(m)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		count[v]++
		fmt.Printf("%-9s %-36s %5.1f s  %s %s\n", v, m.name, time.Since(start).Seconds(), m.pkg, m.test)
		if why != "" {
			fmt.Printf("          breaks: %s\n          %s\n", m.breaks, strings.ReplaceAll(why, "\n", "\n          "))
		}
	}
	fmt.Printf("\nmutants: %d killed, %d survived, %d broken\n", count[killed], count[survived], count[broken])
	return count[killed] == len(mutants), nil
}

// mutant is one patch.
type mutant struct {
	name   string // of the file, without .patch
	patch  string // absolute path
	breaks string
	pkg    string
	test   string // expression for go test -run
	within time.Duration
}

// load reads the mutants of a directory, all or those named, in the order of their names.
func load(dir string, names []string) ([]mutant, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	var mutants []mutant
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".patch")
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		m, err := parse(f)
		if err != nil {
			return nil, err
		}
		m.name = name
		mutants = append(mutants, m)
	}
	if len(mutants) == 0 || len(names) > len(mutants) {
		return nil, fmt.Errorf("found %d mutants in %s for the names %q; run from the top of the tree", len(mutants), dir, names)
	}
	return mutants, nil
}

func parse(file string) (mutant, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return mutant{}, err
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return mutant{}, err
	}
	m := mutant{patch: path, within: testLimit}
	header, _, _ := strings.Cut(string(text), "\n--- ")
	for line := range strings.Lines(header) {
		key, value, _ := strings.Cut(line, ": ")
		value = strings.TrimSpace(value)
		switch key {
		case "Breaks":
			m.breaks = value
		case "Package":
			m.pkg = value
		case "Run":
			m.test = value
		case "Within":
			if m.within, err = time.ParseDuration(value); err != nil {
				return m, fmt.Errorf("%s: Within: %w", file, err)
			}
		}
	}
	if m.breaks == "" || m.pkg == "" || m.test == "" {
		return m, fmt.Errorf("%s: must begin with lines Breaks:, Package: and Run: of one value each", file)
	}
	return m, nil
}

type verdict string

const (
	killed   verdict = "killed"
	survived verdict = "SURVIVED"
	broken   verdict = "BROKEN"
)

// judge tries mutants in its copy of the tree.
type judge struct {
	ctx     context.Context
	tree    string
	healthy map[string]error // what a package's test said of the unbroken tree
}

// try returns the verdict on a mutant, and unless it is killed an explanation.
func (j *judge) try(m mutant) (verdict, string) {
	if err := j.passesUnbroken(m); err != nil {
		return broken, "without the mutant: " + err.Error()
	}
	if err := j.git("apply", m.patch); err != nil {
		return broken, err.Error()
	}
	v, why := j.test(m)
	if err := j.git("apply", "--reverse", m.patch); err != nil {
		return broken, err.Error()
	}
	return v, why
}

// passesUnbroken makes sure that it is the mutant that turns the test red.
func (j *judge) passesUnbroken(m mutant) error {
	key := m.pkg + " " + m.test
	err, known := j.healthy[key]
	if !known {
		if v, why := j.test(m); v != survived {
			err = fmt.Errorf("the test does not pass: %s\n%s", v, why)
		}
		j.healthy[key] = err
	}
	return err
}

// git runs git apply outside of any repository: it must not look for one above the copy.
func (j *judge) git(args ...string) error {
	cmd := exec.CommandContext(j.ctx, "git", args...)
	cmd.Dir = j.tree
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(j.tree))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// test runs the mutant's test on the tree as it is.
func (j *judge) test(m mutant) (verdict, string) {
	cmd := exec.CommandContext(j.ctx, "go", "test", "-json", "-short", "-trimpath", "-count=1", // a root test runs the daemon, which is not its dependency
		"-timeout", m.within.String(), "-run", m.test, m.pkg)
	cmd.Dir = j.tree
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return broken, err.Error()
	}
	var stderr []byte
	if exit != nil {
		stderr = exit.Stderr
	}
	return judgeEvents(out, stderr, m.test)
}

// judgeEvents reads the output of go test -json -run expression.
func judgeEvents(out, stderr []byte, expression string) (verdict, string) {
	depth := strings.Count(expression, "/")
	var printed strings.Builder
	var passed, failed, built = false, false, true
	running := map[string]bool{}
	for line := range bytes.Lines(out) {
		var e struct{ Action, Test, Output string }
		if json.Unmarshal(line, &e) != nil {
			continue
		}
		printed.WriteString(e.Output)
		switch {
		case e.Action == "build-fail":
			built = false
		case e.Test == "" || strings.Count(e.Test, "/") != depth: // not the named test, but one around or below it
		case e.Action == "run":
			running[e.Test] = true
		case e.Action == "pass":
			passed = true
			delete(running, e.Test)
		case e.Action == "fail":
			failed = true
		case e.Action == "skip":
			delete(running, e.Test)
		}
	}
	switch {
	case !built:
		return broken, "does not compile:\n" + printed.String()
	case failed, len(running) > 0: // it failed, or the process died or was out of time under it
		return killed, ""
	case passed:
		return survived, "the test passes"
	default:
		return broken, "no such test ran:\n" + printed.String() + string(stderr)
	}
}
