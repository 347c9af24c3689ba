package hosts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Bird starts bird on the host with a configuration.
func (h *Host) Bird(conf string) *Process {
	h.net.t.Helper()
	need(h.net.t, "bird", "bird2")
	dir := h.ownDir("bird")
	h.writeFile(dir, "bird.conf", conf)
	return h.Start("bird", "-f", "-c", filepath.Join(dir, "bird.conf"), "-s", filepath.Join(dir, "ctl"), "-P", filepath.Join(dir, "pid"))
}

// FRR starts the daemons of FRR that a node needs to announce endpoints.
type FRR struct {
	Daemons []*Process
	host    *Host
	dir     string
}

// FRR starts zebra, bfdd and bgpd on the host with a configuration.
func (h *Host) FRR(conf string) *FRR {
	h.net.t.Helper()
	need(h.net.t, "/usr/lib/frr/zebra", "frr")
	f := &FRR{host: h, dir: h.ownDir("frr")}
	h.writeFile(f.dir, "frr.conf", conf)
	h.writeFile(f.dir, "vtysh.conf", "no service integrated-vtysh-config\n")
	for dir := f.dir; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) { // FRR's user has to get there
		if err := os.Chmod(dir, 0o755); err != nil {
			h.net.t.Fatal(err)
		}
	}
	if out, err := exec.Command("chown", "-R", "frr:frr", f.dir).CombinedOutput(); err != nil {
		h.net.t.Fatalf("chown: %v\n%s", err, out)
	}
	for _, name := range []string{"zebra", "bfdd", "bgpd"} {
		args := []string{"/usr/lib/frr/" + name, "-f", filepath.Join(f.dir, "frr.conf"), "-z", filepath.Join(f.dir, "zserv.api"), "-i", filepath.Join(f.dir, name+".pid"),
			"--vty_socket", f.dir, "-u", "frr", "-g", "frr"}
		if name == "bfdd" {
			args = append(args, "--bfdctl", filepath.Join(f.dir, "bfdd.sock"))
		}
		f.Daemons = append(f.Daemons, h.Start(args...))
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if _, err := os.Stat(filepath.Join(f.dir, name+".vty")); err == nil {
				break
			}
			if time.Now().After(end) {
				h.net.t.Fatalf("%s: %s of FRR does not start: %s", h.Name, name, f.Daemons[len(f.Daemons)-1].Log())
			}
		}
	}
	return f
}

// Show asks FRR.
func (f *FRR) Show(words string) string {
	out, _ := f.host.Run("vtysh", "--vty_socket", f.dir, "--config_dir", f.dir, "-c", words)
	return out
}

// Stop ends the daemons.
func (f *FRR) Stop() {
	for i := len(f.Daemons) - 1; i >= 0; i-- {
		_ = f.Daemons[i].Stop()
	}
}

// ownDir makes a directory for something that the host runs.
func (h *Host) ownDir(what string) string {
	h.net.t.Helper()
	dir := filepath.Join(h.net.dir, fmt.Sprintf("%s-%s", h.Name, what))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		h.net.t.Fatal(err)
	}
	return dir
}

func (h *Host) writeFile(dir, name, text string) {
	h.net.t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		h.net.t.Fatal(err)
	}
}

// RoutingConf is a file of scripts/routing with its words replaced: name, value, name, value.
func (n *Net) RoutingConf(name string, words ...string) string {
	n.t.Helper()
	text, err := os.ReadFile(script(n.t, "scripts/routing/"+name))
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.NewReplacer(words...).Replace(string(text))
}
