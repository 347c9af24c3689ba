// Command mutants asks whether the tests can fail. Each mutant is a patch that breaks the product on
// purpose, and names the test that must notice. In a copy of the tree, each is applied, built, tested
// and taken back. It is killed when the named test ran and failed; it survived when the test passed;
// it is broken, which is as bad, when it does not apply, does not compile, names a test that does not
// exist, or names one that fails without it.
//
// Usage: go run ./scripts/mutants [-part K/N] [NAME...]
//
// With -part every N-th mutant is tried, beginning with the K-th (from 0), for who has less time than all of them take.
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
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// testLimit bounds one run of a test, unless the mutant has a limit of its own.
const testLimit = 3 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	part := flag.String("part", "0/1", "K/N: every N-th mutant, from the K-th on")
	flag.Parse()
	ok, err := run(ctx, *part, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

func run(ctx context.Context, part string, names []string) (allKilled bool, err error) {
	all, err := load("scripts/mutants", names)
	if err != nil {
		return false, err
	}
	mutants, err := partOf(all, part)
	if err != nil {
		return false, err
	}
	if left := len(all) - len(mutants); left > 0 {
		fmt.Printf("mutants: part %s: %d are tried, %d are not\n", part, len(mutants), left)
	}
	// Root tests make traffic, and are alone.
	var side, alone []mutant
	for _, m := range mutants {
		if m.root() {
			alone = append(alone, m)
		} else {
			side = append(side, m)
		}
	}
	t := &tally{mutants: mutants, healthy: map[string]func() *outcome{}, count: map[verdict]int{}}
	if err := t.run(ctx, side, judges); err != nil {
		return false, err
	}
	if err := t.run(ctx, alone, 1); err != nil {
		return false, err
	}
	fmt.Printf("\nmutants: %d killed, %d survived, %d broken\n", t.count[killed], t.count[survived], t.count[broken])
	return t.count[killed] == len(mutants), nil
}

// partOf returns every n-th mutant from the k-th on.
func partOf(all []mutant, part string) (some []mutant, err error) {
	var k, n int
	if got, err := fmt.Sscanf(part, "%d/%d", &k, &n); got != 2 || err != nil || n < 1 || k < 0 || k >= n || fmt.Sprintf("%d/%d", k, n) != part {
		return nil, fmt.Errorf("-part %q: must be K/N with K from 0 to N-1, such as 0/2", part)
	}
	for i := k; i < len(all); i += n {
		some = append(some, all[i])
	}
	if len(some) == 0 {
		return nil, fmt.Errorf("-part %s: of %d mutants there is none in it", part, len(all))
	}
	return some, nil
}

// judges is how many mutants are tried side by side: many tests wait more than they work.
const judges = 2

// tally is what judges have in common.
type tally struct {
	mutants []mutant

	mu      sync.Mutex
	healthy map[string]func() *outcome // of the unbroken tree, by package and level of the tests
	count   map[verdict]int
}

// run has judges, each with a copy of the tree, try a list.
func (t *tally) run(ctx context.Context, list []mutant, judges int) error {
	if len(list) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan mutant, len(list))
	for _, m := range list {
		next <- m
	}
	close(next)
	var wg sync.WaitGroup
	for range judges {
		wg.Go(func() {
			if err := t.judge(ctx, next); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// judge tries mutants in a copy of the tree.
func (t *tally) judge(ctx context.Context, next <-chan mutant) error {
	tree, err := os.MkdirTemp("", "causeway-mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	if out, err := exec.CommandContext(ctx, "scripts/copy-tree.sh", tree).CombinedOutput(); err != nil {
		return fmt.Errorf("copying the tree: %w\n%s", err, out)
	}
	j := judge{ctx: ctx, tree: tree, tally: t}
	for m := range next {
		start := time.Now()
		v, why := j.try(m)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		t.note(m, v, why, time.Since(start))
	}
	return nil
}

func (t *tally) note(m mutant, v verdict, why string, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count[v]++
	fmt.Printf("%-9s %-36s %5.1f s  %s %s\n", v, m.name, took.Seconds(), m.pkg, m.test)
	if why != "" {
		fmt.Printf("          breaks: %s\n          %s\n", m.breaks, strings.ReplaceAll(why, "\n", "\n          "))
	}
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
	*tally
	ctx  context.Context
	tree string
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
	key := fmt.Sprint(m.pkg, m.root())
	if m.level() > 0 { // go test -run takes one expression for each level
		key += " " + m.test
	}
	j.mu.Lock()
	o, known := j.healthy[key]
	if !known {
		o = sync.OnceValue(func() *outcome { return j.run(m.pkg, j.expression(m), unbrokenLimit, m.level()) })
		j.healthy[key] = o
	}
	j.mu.Unlock()
	if v, why := o().verdict(m.names()); v != survived {
		return fmt.Errorf("the test does not pass: %s\n%s", v, why)
	}
	return nil
}

// unbrokenLimit bounds the tests of a package that mutants name, one after the other.
const unbrokenLimit = 20 * time.Minute

// level is how deep the named test is: 0 is one of a package, 1 a part of that.
func (m mutant) level() int { return strings.Count(m.test, "/") }

// root reports whether the named test makes traffic.
func (m mutant) root() bool { return strings.Contains(m.test, "TestRoot") }

// names is what the named tests are called, at their level.
func (m mutant) names() *regexp.Regexp {
	return regexp.MustCompile(m.test[strings.LastIndex(m.test, "/")+1:])
}

// expression names all tests of a mutant's package that mutants name: run together they take less time. Parts of tests are run alone.
func (j *judge) expression(m mutant) string {
	if m.level() > 0 {
		return m.test
	}
	var all []string
	for _, o := range j.mutants {
		if o.pkg == m.pkg && o.root() == m.root() && o.level() == 0 && !slices.Contains(all, o.test) {
			all = append(all, o.test)
		}
	}
	return strings.Join(all, "|")
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
	return j.run(m.pkg, m.test, m.within, m.level()).verdict(m.names())
}

// run runs tests of a package. Those of a mutant wait less long for what does not come (CAUSEWAY_PATIENCE).
func (j *judge) run(pkg, expression string, limit time.Duration, level int) *outcome {
	cmd := exec.CommandContext(j.ctx, "go", "test", "-json", "-short", "-trimpath", "-count=1", // a root test runs the daemon, which is not its dependency
		"-timeout", limit.String(), "-run", expression, pkg)
	cmd.Dir = j.tree
	cmd.Env = append(os.Environ(), "CAUSEWAY_PATIENCE=12s")
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return &outcome{printed: err.Error(), built: true}
	}
	var stderr []byte
	if exit != nil {
		stderr = exit.Stderr
	}
	return readEvents(out, stderr, level)
}

// An outcome is what became of tests, of one level.
type outcome struct {
	built          bool
	passed, failed map[string]bool // by name; those that had not ended when the process did have failed
	printed        string
}

// verdict is what the tests with such names, of their level alone, say of the tree.
func (o *outcome) verdict(names *regexp.Regexp) (verdict, string) {
	any := func(of map[string]bool) bool {
		for name := range of {
			if names.MatchString(name[strings.LastIndex(name, "/")+1:]) {
				return true
			}
		}
		return false
	}
	switch {
	case !o.built:
		return broken, "does not compile:\n" + o.printed
	case any(o.failed):
		return killed, ""
	case any(o.passed):
		return survived, "the test passes"
	default:
		return broken, "no such test ran:\n" + o.printed
	}
}

// readEvents reads the output of go test -json, of the tests of a level.
func readEvents(out, stderr []byte, level int) *outcome {
	o := &outcome{built: true, passed: map[string]bool{}, failed: map[string]bool{}}
	var printed strings.Builder
	for line := range bytes.Lines(out) {
		var e struct{ Action, Test, Output string }
		if json.Unmarshal(line, &e) != nil {
			continue
		}
		printed.WriteString(e.Output)
		switch {
		case e.Action == "build-fail":
			o.built = false
		case e.Test == "" || strings.Count(e.Test, "/") != level: // not the named test, but one around or below it
		case e.Action == "run", e.Action == "fail":
			o.failed[e.Test] = true // if the process dies, or is out of time, under it
		case e.Action == "pass":
			o.passed[e.Test] = true
			delete(o.failed, e.Test)
		case e.Action == "skip":
			delete(o.failed, e.Test)
		}
	}
	o.printed = printed.String() + string(stderr)
	return o
}
