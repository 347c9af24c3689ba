package clickhouse

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A server is a clickhouse-server of the test's own: its files, its port, and a user with a password.
type server struct {
	t    testing.TB
	dir  string
	port int
	run  *exec.Cmd
}

const serverConfig = `<yandex>
<logger><level>warning</level><log>DIR/log</log><errorlog>DIR/err.log</errorlog></logger>
<http_port>PORT</http_port><listen_host>127.0.0.1</listen_host><timezone>Asia/Kathmandu</timezone>
<path>DIR/data/</path><tmp_path>DIR/tmp/</tmp_path><user_files_path>DIR/files/</user_files_path><users_config>DIR/users.xml</users_config>
<default_profile>default</default_profile><default_database>default</default_database><mark_cache_size>67108864</mark_cache_size>
</yandex>`

const serverUsers = `<yandex>
<profiles><default></default></profiles><quotas><default></default></quotas>
<users><edge><password>it's s3cret</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></edge>
<default><password>another</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default></users>
</yandex>`

const serverPassword = "it's s3cret"

// startServer starts a server, which ends with the test.
func startServer(t testing.TB) *server {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it mounts a small file system")
	}
	if _, err := exec.LookPath("clickhouse-server"); err != nil {
		t.Fatal("needs Debian's clickhouse-server: scripts/deps.sh installs it")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, dir: t.TempDir(), port: l.Addr().(*net.TCPAddr).Port}
	l.Close()
	// Its files in memory: it waits for the disk with each table.
	if err := unix.Mount("causeway", s.dir, "tmpfs", 0, "size=4g"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.kill()
		_ = unix.Unmount(s.dir, unix.MNT_DETACH)
	})
	s.configure()
	s.start()
	return s
}

func (s *server) configure() {
	s.t.Helper()
	for name, text := range map[string]string{"config.xml": serverConfig, "users.xml": serverUsers} {
		text = strings.NewReplacer("DIR", s.dir, "PORT", fmt.Sprint(s.port)).Replace(text)
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *server) start() {
	s.t.Helper()
	s.run = exec.Command("clickhouse-server", "--config-file="+filepath.Join(s.dir, "config.xml"))
	if err := s.run.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		answer, err := http.Get(s.host() + "/ping")
		if err == nil {
			answer.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(s.dir, "err.log"))
			s.t.Fatalf("clickhouse-server does not answer: %v\n%s", err, log)
		}
	}
}

// kill ends the server at once, as a crash does.
func (s *server) kill() {
	if s.run == nil {
		return
	}
	_ = s.run.Process.Kill()
	_ = s.run.Wait() // it was killed
	s.run = nil
}

func (s *server) host() string { return fmt.Sprintf("http://127.0.0.1:%d", s.port) }

func (s *server) url(database string) string {
	return fmt.Sprintf("http://edge@127.0.0.1:%d/%s", s.port, database)
}

// open opens a node's store, which is closed with the test.
func (s *server) open(database, node string, change func(*Options)) *Store {
	s.t.Helper()
	o := Options{URL: s.url(database), Password: serverPassword, Node: node, Buffer: s.t.TempDir(), Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if change != nil {
		change(&o)
	}
	x, err := Open(o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { x.Close() })
	return x
}

// raw asks the server itself, and returns the rows.
func (s *Store) raw(t testing.TB, sql string) (out []string) {
	t.Helper()
	if err := s.client.rows(context.Background(), sql, map[string][]string{}, func(row []any) error {
		out = append(out, fmt.Sprint(row...))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}
