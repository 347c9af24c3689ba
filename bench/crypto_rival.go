package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed peers/ipsecmb.c
var ipsecMBSource []byte

// ipsecMB is the program of peers/ipsecmb.c.
type ipsecMB struct {
	dir    string
	repeat int
	why    string // it cannot be run
}

const ipsecMBHeader = "/usr/include/intel-ipsec-mb.h"

// newIPsecMB compiles it, where there is a library to compile it with.
func newIPsecMB(quick bool) (*ipsecMB, error) {
	r := &ipsecMB{repeat: 15}
	if quick {
		r.repeat = 1
	}
	if _, err := os.Stat(ipsecMBHeader); err != nil {
		r.why = "intel-ipsec-mb is not installed (Debian: libipsec-mb-dev)"
		return r, nil
	}
	cc, err := exec.LookPath("cc")
	if err != nil {
		r.why = "there is no C compiler for intel-ipsec-mb"
		return r, nil
	}
	if r.dir, err = os.MkdirTemp("", "causeway-ipsecmb-"); err != nil {
		return nil, err
	}
	cmd := exec.Command(cc, "-O2", "-x", "c", "-", "-o", r.program(), "-lIPSec_MB")
	cmd.Stdin = bytes.NewReader(ipsecMBSource)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("peers/ipsecmb.c: %w\n%s", err, out)
	}
	return r, nil
}

func (r *ipsecMB) program() string { return filepath.Join(r.dir, "ipsecmb") }

func (r *ipsecMB) close() {
	if r.dir != "" {
		os.RemoveAll(r.dir)
	}
}

// compare adds to a result how long the library takes, on the core that this process is pinned to.
func (r *ipsecMB) compare(c cryptoCase, to *Result) error {
	if r.why != "" {
		to.Note = r.why
		return nil
	}
	if c.size == 0 {
		return nil // the program takes packets of one size
	}
	out, err := exec.Command(r.program(), strconv.Itoa(r.repeat), strconv.Itoa(c.keyBits), strconv.Itoa(c.size)).Output()
	if err != nil {
		return fmt.Errorf("ipsecmb: %w", err)
	}
	fields := strings.Fields(string(out))
	if len(fields) != 3 {
		return fmt.Errorf("ipsecmb printed %q", out)
	}
	column := 1
	if c.open {
		column = 2
	}
	if to.IPsecMBNS, err = strconv.ParseFloat(fields[column], 64); err != nil {
		return fmt.Errorf("ipsecmb printed %q", out)
	}
	return nil
}
