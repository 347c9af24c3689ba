package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const charonPath = "/usr/lib/ipsec/charon"

// A charon is strongSwan's IKE daemon as a responder. Its settings are the usual ones, but for what bounds or slows
// peers that are many (cookies, half-open SAs, the size of its tables), and it logs nothing. ESP is that in user space, which it
// asks its peer to put into UDP for: kernels of the machines that bench runs on have none.
type charon struct {
	cmd *exec.Cmd
	dir string
}

const charonSettings = `charon {
  load = random nonce openssl aes sha1 sha2 hmac kdf pem pkcs1 x509 pubkey constraints gcm ctr chapoly curve25519 kernel-libipsec kernel-netlink socket-default updown vici
  install_routes = no
  cookie_threshold = 1000000
  cookie_threshold_ip = 1000000
  block_threshold = 1000000
  init_limit_half_open = 0
  ikesa_table_size = 1024
  ikesa_table_segments = 4
  plugins { vici { socket = unix://%s/vici } }
  syslog {
    daemon { default = -1 }
    auth { default = -1 }
  }
}
`

const charonConnection = `connections {
  bench {
    version = 2
    local_addrs = %s
    unique = never
    proposals = %s
    local { auth = psk
      id = %s }
    remote { auth = psk
      id = %%any }
    children { net {
      local_ts = 0.0.0.0/0,::/0
      remote_ts = 0.0.0.0/0,::/0
      esp_proposals = %s } }
  }
}
secrets { ike { secret = "%s" } }
`

// startCharon starts it, or says why there is none: then missing is not empty.
func startCharon(l *ikeLab, proposals []string, esp string) (c *charon, missing string, err error) {
	for _, path := range []string{charonPath, "/usr/sbin/swanctl", "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so"} {
		if _, err := os.Stat(path); err != nil {
			return nil, "no strongSwan (scripts/deps.sh installs it): " + path + " is missing", nil
		}
	}
	c = &charon{}
	if c.dir, err = os.MkdirTemp("", "causeway-bench-charon-"); err != nil {
		return nil, "", err
	}
	if err := c.start(l, proposals, esp); err != nil {
		return nil, "", errors.Join(fmt.Errorf("charon: %w", err), c.stop())
	}
	return c, "", os.RemoveAll(c.dir) // it has read them: nothing is left behind however this process ends
}

func (c *charon) start(l *ikeLab, proposals []string, esp string) error {
	connection := fmt.Sprintf(charonConnection, ikeRival, strings.Join(proposals, ","), ikeGateway, esp, ikeSecret)
	if err := errors.Join(
		os.WriteFile(filepath.Join(c.dir, "strongswan.conf"), fmt.Appendf(nil, charonSettings, c.dir), 0o600),
		os.WriteFile(filepath.Join(c.dir, "swanctl.conf"), []byte(connection), 0o600)); err != nil {
		return err
	}
	// /run is its own, because of /run/charon.pid.
	c.cmd = exec.Command("taskset", "--cpu-list", strconv.Itoa(l.cores[1]), "unshare", "--mount",
		"sh", "-c", "mount -t tmpfs tmpfs /run && exec "+charonPath)
	c.cmd.Env = append(os.Environ(), "STRONGSWAN_CONF="+filepath.Join(c.dir, "strongswan.conf"))
	if err := l.rival.start(c.cmd); err != nil {
		return err
	}
	var out []byte
	var err error
	for range 100 {
		load := exec.Command("swanctl", "--load-all", "--uri", "unix://"+c.dir+"/vici", "--file", filepath.Join(c.dir, "swanctl.conf"))
		load.Env = c.cmd.Env
		if out, err = load.CombinedOutput(); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%w: %s", err, lastLine(out))
}

func (c *charon) stop() error {
	if c.cmd != nil && c.cmd.Process != nil {
		_ = c.cmd.Process.Kill() // an error says that it has ended
		_ = c.cmd.Wait()         // says that it was killed
	}
	return os.RemoveAll(c.dir) // there, if it did not start
}
