package doctor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"causeway/config"
)

// The report works for whoever asks, and says of each line how bad it is.
func TestExamineWithoutConfiguration(t *testing.T) {
	found := map[string]Finding{}
	for _, f := range Examine(nil) {
		if f.Level != OK && f.Level != Warn && f.Level != Fail {
			t.Errorf("%+v has no level", f)
		}
		if _, twice := found[f.What]; twice {
			t.Errorf("two lines about %s", f.What)
		}
		found[f.What] = f
	}
	features := []string{"af-xdp", "shared-umem", "need-wakeup"}
	if _, ok := found["features"]; ok { // they could not be asked: one line for all
		features = nil
	}
	for _, what := range append(features, "kernel", "rights", "locked memory", "tun", "interfaces") {
		if _, ok := found[what]; !ok {
			t.Errorf("no line about %s", what)
		}
	}
	if f := found["kernel"]; f.Level != OK || !strings.HasPrefix(f.Text, "Linux ") {
		t.Errorf("%+v", f)
	}
}

func TestAnInterfaceThatIsNotThereFails(t *testing.T) {
	c, err := config.Parse("test.yaml", []byte("interfaces: [{name: nosuch0}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range Examine(c) {
		if strings.Contains(f.Text, "nosuch0") {
			lines = append(lines, fmt.Sprintf("%s %s: %s", f.Level, f.What, f.Text))
		}
	}
	const want = "fail nosuch0: interface nosuch0: no such network interface; `ip link` lists those of this network namespace"
	if len(lines) != 1 || lines[0] != want {
		t.Errorf("%q, want one line: %s", lines, want)
	}
}

func TestProcFields(t *testing.T) {
	if v, err := procField("/proc/self/status", "Name:"); err != nil || v == "" {
		t.Errorf("%q, %v", v, err)
	}
	if _, err := procField("/proc/self/status", "Nonesuch:"); err == nil {
		t.Error("a field that is not there was found")
	}
}

func TestSequenceNumbersNeedAPlace(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	damaged, open, taken := filepath.Join(dir, "damaged"), filepath.Join(dir, "open"), filepath.Join(dir, "taken")
	for _, d := range []string{damaged, open, taken} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := os.Open(taken)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := errors.Join(os.WriteFile(filepath.Join(damaged, "esp.json"), []byte("{}"), 0o600), os.Chmod(open, 0o777),
		unix.Flock(int(lock.Fd()), unix.LOCK_EX)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tunnel, state string
		want          Level
	}{
		{"sequence: true", damaged, Fail},
		{"sequence: true", open, Fail},
		{"sequence: true", taken, Warn},
		{"sequence: true", filepath.Join(dir, "made", "later"), OK},
		{"sequence: true", dir, OK},
		{"sequence: true", filepath.Join(file, "below"), Fail},
		{"sequence: false", "/proc/nope", ""},
	} {
		text := "node: {state_dir: " + c.state + "}\ninterfaces: [{name: nowhere0}]\nendpoints: [192.0.2.1]\ntunnels:\n" +
			"  - {name: a, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, interface_address: 10.0.0.0/31, " + c.tunnel + "}\n"
		cfg, err := config.Parse("c.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var got Level
		for _, f := range Examine(cfg) {
			if f.What == "state" {
				got = f.Level
			}
		}
		if got != c.want {
			t.Errorf("%s, state_dir %s: %q, want %q", c.tunnel, c.state, got, c.want)
		}
	}
}

// TestTunnelsThatDoNotFit: a tunnel whose packets fit no port is named, with the MTU that would fit.
func TestTunnelsThatDoNotFit(t *testing.T) {
	cfg, err := config.Parse("c.yaml", []byte("interfaces: [{name: nowhere0}]\nendpoints: [192.0.2.1]\ntunnels:\n"+
		"  - {name: fits, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, interface_address: 10.0.0.0/31, mtu: 1476}\n"+
		"  - {name: large, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.3, interface_address: 10.0.0.2/31, mtu: 1477}\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := &report{}
	r.tunnels(cfg, 1500)
	if len(r.findings) != 1 || r.findings[0].Level != Warn || r.findings[0].What != "tunnel large" || !strings.HasPrefix(r.findings[0].Todo, "mtu: 1476") {
		t.Errorf("%+v", r.findings)
	}
	r = &report{}
	if r.tunnels(cfg, 0); len(r.findings) > 0 {
		t.Errorf("without a port: %+v", r.findings)
	}
}

func TestSocketAndMetricsPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	for _, c := range []struct{ socket, listen, what, text string }{
		{filepath.Join(dir, "s"), "", "control socket", "ok " + filepath.Join(dir, "s")},
		{filepath.Join(dir, "no", "s"), "", "control socket", "fail " + filepath.Join(dir, "no", "s") + " cannot be made: " + filepath.Join(dir, "no") + ": no such file or directory"},
		{filepath.Join(dir, "s"), taken.Addr().String(), "metrics", "warn " + taken.Addr().String() + " is in use; unless it is by a running causeway, run will refuse to start"},
		{filepath.Join(dir, "s"), "203.0.113.1:9150", "metrics", "fail listen tcp 203.0.113.1:9150: bind: cannot assign requested address"},
	} {
		text := fmt.Sprintf("interfaces: [{name: nowhere0}]\ncontrol: {socket: %q}\n", c.socket)
		if c.listen != "" {
			text += fmt.Sprintf("metrics: {listen: %q}\n", c.listen)
		}
		cfg, err := config.Parse("test.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range Examine(cfg) {
			if f.What == c.what {
				got = append(got, string(f.Level)+" "+f.Text)
			}
		}
		if len(got) != 1 || got[0] != c.text {
			t.Errorf("%s: %q, want %q", c.what, got, c.text)
		}
	}
}
