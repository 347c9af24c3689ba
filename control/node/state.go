package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"causeway/config"
)

// defaultStateDir is used when the configuration has no node.state_dir.
const defaultStateDir = "/var/lib/causeway"

// StateDir is where a node with this configuration keeps what must survive it.
func StateDir(c *config.Config) string {
	if c.Node.StateDir == "" {
		return defaultStateDir
	}
	return c.Node.StateDir
}

// stateDir is node.state_dir. It is touched only when something has to be kept.
type stateDir struct {
	path string
	mu   sync.Mutex
	lock *os.File // held while the directory is in use
}

// errStateInUse says that another daemon has the directory.
var errStateInUse = errors.New("in use by another daemon")

// take makes the directory, and takes it for this daemon alone.
func (d *stateDir) take() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock != nil {
		return nil
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(d.path)); err != nil { // it may be new
		return err
	}
	lock, err := os.OpenFile(d.file("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return fmt.Errorf("node.state_dir: %s is %w: give each its own", d.path, errStateInUse)
	}
	d.lock = lock
	return nil
}

func (d *stateDir) file(name string) string { return filepath.Join(d.path, name) }

// write replaces a file: after a crash it is the old one or the new one, and the new one when write has returned.
func (d *stateDir) write(name string, content []byte) error {
	f, err := os.OpenFile(d.file(name+".new"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), d.file(name)); err != nil {
		return err
	}
	return syncDir(d.path)
}

// syncDir makes the names in a directory survive a crash.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// close lets another daemon have the directory.
func (d *stateDir) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock != nil {
		d.lock.Close() // the lock goes with it
		d.lock = nil
	}
}
