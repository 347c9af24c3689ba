package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// The test binary is also the program: root tests start it in network namespaces.
func TestMain(m *testing.M) {
	if os.Getenv("PKTGEN_TEST_IS_PROGRAM") != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestWrongUse(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "no command: give send or sink"},
		{"receive", `argument "receive" is not understood`},
		{"send", "no destination: give --dst ADDRESS"},
		{"send x", `argument "x" is not understood: options begin with --`},
		{"send --dst 10.0.0.2", "no interface: give --interface NAME"},
		{"send --dst 10.0.0.2 -i nosuch0", `interface "nosuch0": Link not found`},
		{"send --dst 10.0.0", `--dst "10.0.0" is not an IPv4 or IPv6 address`},
		{"send --dst fe80::1%lo", `--dst "fe80::1%lo" is not an IPv4 or IPv6 address (without zone)`},
		{"send --dst 10.0.0.2 --dst-mac 1:2", `--dst-mac "1:2" is not a MAC address like 02:00:00:00:00:01`},
		{"send --dst 10.0.0.2 --engine dpdk", `--engine "dpdk" is not allowed: one of [xsk live]`},
		{"send --dst 10.0.0.2 --mode zc", `--mode "zc" is not allowed: one of [auto copy zero-copy]`},
		{"send --dst 10.0.0.2 --probe yes", `--probe "yes" is not allowed: one of [auto on off]`},
		{"send --dst 10.0.0.2 --queue -1", "queue -1 is not allowed: 0 to 1023"},
		{"send --dst 10.0.0.2 --queue 1 --engine live", "--queue 1 is for --engine xsk"},
		{"send --dst 10.0.0.2 --duration 0", "duration 0s is not allowed"},
		{"send --dst 10.0.0.2 --duration 25h", "duration 25h0m0s is not allowed: more than 0, at most 24h0m0s"},
		{"send --dst 10.0.0.2 --rate 1T", `--rate: "1T" is not a number`},
		{"send --dst 10.0.0.2 --rate 1G", "--rate 1G is too large: at most 100000000"},
		{"send --dst 10.0.0.2 --rate -1", `--rate: "-1" is not a number`},
		{"send --dst 10.0.0.2 --rate NaN", `--rate: "NaN" is not a number`},
		{"send --dst 10.0.0.2 --flows 1G", "--flows 1G is too large: at most 16777216"},
		{"send --dst 10.0.0.2 --size 63", `--size: size "63" is not allowed: give a frame size of 64 to 2052 bytes`},
		{"send --dst 10.0.0.2 --size mix", `--size: size "mix" is not allowed`},
		{"send --dst 10.0.0.2 --gre-key 4", "--gre-src and --gre-key need --gre-dst ADDRESS"},
		{"send --dst 10.0.0.2 --gre-dst 10.0.0.3", "no inner source address: give --src ADDRESS with --gre-dst"},
		{"send --dst 10.0.0.2 --gre-key x", `invalid argument "x" for "--gre-key"`},
		{"send --nosuch", "unknown flag: --nosuch"},
		{"send --dst 10.0.0.2 -i lo --src 10.0.0.1 --dst-mac 02:00:00:00:00:01 --src-mac 02:00:00:00:00:02 --flows 0", "0 flows are not allowed"},
		{sendLo + "--vlan 4095", "VLAN 4095 is not allowed: 1 to 4094, or 0 for no tag"},
		{sendLo + "--mss 1460", "--mss 1460 is an option of a TCP SYN: give --tcp-syn too"},
		{sendLo + "--tcp-syn --mss 65536", "MSS 65536 is not allowed: 1 to 65535, or 0 for no option"},
		{sendLo + "--sport 65000 --flows 2000", "1024 source ports from 65000 on are not allowed"},
		{sendLo + "--dport 65536", "ports 1024 -> 65536 are not allowed: 0 to 65535"},
		{sendLo + "--src ::1", "source ::1 and destination 10.0.0.2 are of different families"},
		{sendLo + "--gre-dst ::1 --gre-src 1.1.1.1", "GRE source 1.1.1.1 and destination ::1 are of different families"},
		{sendLo + "--src 255.255.255.255 --flows 2 --flow-ports 1", "2 flows from 255.255.255.255 leave the address space"},
		{sendLo + "--tcp-syn --size 64 --probe on", "size 64 is too small for these headers and the probe: at least 76"},
		{"sink", "no interface: give --interface NAME"},
		{"sink --engine xsk --queue 256", "queue 256 is not allowed: 0 to 255"},
		{"sink --engine xdp --queue 0", "--queue and --verify are for --engine xsk"},
		{"sink --attach driver", `--attach "driver" is not allowed: one of [auto native generic]`},
		{"sink --idle -1s", "--idle -1s is negative"},
		{"sink --expect many", `--expect: "many" is not a number`},
	} {
		var out, errs bytes.Buffer
		status := run(context.Background(), strings.Fields(c.args), &out, &errs)
		if status != exitWrongUse || !strings.Contains(errs.String(), c.want) || out.Len() > 0 {
			t.Errorf("pktgen %s: status %d, want 2\n have %s want %s", c.args, status, errs.String(), c.want)
		}
	}
}

const sendLo = "send --dst 10.0.0.2 -i lo --src 10.0.0.1 --dst-mac 02:00:00:00:00:01 --src-mac 02:00:00:00:00:02 "

// Every example line is a command line that the program takes, and -h shows every option.
func TestHelp(t *testing.T) {
	for _, line := range strings.Split(newRoot().Example, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "pktgen" {
			continue
		}
		root := newRoot()
		cmd, rest, err := root.Find(words[1:])
		if err != nil || cmd == root {
			t.Errorf("%q: %v", line, err)
			continue
		}
		if err := cmd.ParseFlags(rest); err != nil || len(cmd.Flags().Args()) > 0 {
			t.Errorf("%q: %v, left over %q", line, err, cmd.Flags().Args())
		}
	}
	for _, cmd := range newRoot().Commands() {
		checkHelp(t, cmd)
	}
}

func checkHelp(t *testing.T, cmd *cobra.Command) {
	var out, errs bytes.Buffer
	if status := run(context.Background(), []string{cmd.Name(), "-h"}, &out, &errs); status != 0 {
		t.Errorf("%s -h: status %d, %s", cmd.Name(), status, errs.String())
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(out.String(), "--"+f.Name) || f.Usage == "" {
			t.Errorf("%s -h does not explain --%s", cmd.Name(), f.Name)
		}
	})
}

func TestParseCount(t *testing.T) {
	for s, want := range map[string]uint64{"0": 0, "7": 7, "1.5k": 1500, "100k": 1e5, "2M": 2e6, "0.1G": 1e8, "1e3": 1000} {
		if got, err := parseCount(s); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "k", "1kk", "-1", "inf", "NaN", "1e30", "0x", "1 k"} {
		if got, err := parseCount(s); err == nil {
			t.Errorf("%q is taken as %d", s, got)
		}
	}
}

// The library's panic becomes an error; another panic is not swallowed.
func TestSendtoError(t *testing.T) {
	if err := sendtoError(errorText("sendto failed with rc=18446744073709551615 and errno=100")); !strings.Contains(err.Error(), unix.ENETDOWN.Error()) {
		t.Errorf("have %q, want %q in it", err, unix.ENETDOWN.Error())
	}
	defer func() {
		if recover() == nil {
			t.Error("a panic that is not sendto's was swallowed")
		}
	}()
	sendtoError("index out of range")
}

type errorText string

func (e errorText) Error() string { return string(e) }
