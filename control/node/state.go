package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"causeway/config"
)

// DefaultStateDir is used when the configuration has no node.state_dir.
const DefaultStateDir = "/var/lib/causeway"

// StateDir is where a node with this configuration keeps what must survive it.
func StateDir(c *config.Config) string {
	if c.Node.StateDir == "" {
		return DefaultStateDir
	}
	return c.Node.StateDir
}

// stateDir is node.state_dir. It is touched only when something has to be kept. Once taken it is the directory that was found
// then, whatever the path leads to later: another in its place is another daemon's, and what was removed takes no file.
type stateDir struct {
	path string
	mu   sync.Mutex
	root *os.Root
	self *os.File // the directory, locked
}

var (
	// ErrStateInUse says that another daemon has the directory.
	ErrStateInUse = errors.New("in use by another daemon")

	// errStateOpen says that others could change what is kept.
	errStateOpen = errors.New("others can change what is kept there, and so make IVs and sequence numbers come again")
)

// take makes the directory, and takes it for this daemon alone.
func (d *stateDir) take() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.root != nil {
		return nil
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(d.path)); err != nil { // it may be new
		return err
	}
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return err
	}
	self, err := root.Open(".")
	if err == nil {
		if err = d.lock(self); err != nil {
			self.Close()
		}
	}
	if err != nil {
		root.Close()
		return err
	}
	d.root, d.self = root, self
	return nil
}

// lock checks whose the directory is, and locks it.
func (d *stateDir) lock(self *os.File) error {
	var stat unix.Stat_t
	if err := unix.Fstat(int(self.Fd()), &stat); err != nil {
		return err
	}
	switch user := os.Geteuid(); {
	case int(stat.Uid) != user:
		return fmt.Errorf("node.state_dir: %s belongs to user %d, the daemon runs as %d: %w; chown %d %s", d.path, stat.Uid, user, errStateOpen, user, d.path)
	case stat.Mode&0o022 != 0:
		return fmt.Errorf("node.state_dir: %s has mode %04o: %w; chmod 700 %s", d.path, stat.Mode&0o7777, errStateOpen, d.path)
	}
	if err := unix.Flock(int(self.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("node.state_dir: %s is %w: give each its own", d.path, ErrStateInUse)
	}
	return nil
}

// ExamineState says what would keep a node with this configuration from using its state directory, if there is one already. It
// changes nothing.
func ExamineState(c *config.Config) error {
	d := &stateDir{path: StateDir(c)}
	if _, err := os.Stat(d.path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := d.take(); err != nil {
		return err
	}
	defer d.close()
	_, marks := readESPMarks(d)
	if errors.Is(marks, fs.ErrNotExist) {
		marks = nil
	}
	_, numbers := readMarks(d)
	var disk unix.Statfs_t
	if err := errors.Join(marks, numbers, unix.Fstatfs(int(d.self.Fd()), &disk)); err != nil {
		return err
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < leastRoom {
		return fmt.Errorf("node.state_dir: %s has room for %d bytes: %w", d.path, free, unix.ENOSPC)
	}
	return nil
}

// leastRoom is more than the files of a few thousand tunnels take.
const leastRoom = 1 << 20

// advice is what to do about an error of the directory.
func advice(err error) string {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return "make room on its disk"
	}
	return "name a directory that the daemon can make and write"
}

// file is where a file stands, for messages.
func (d *stateDir) file(name string) string { return filepath.Join(d.path, name) }

// read returns what a file contains. The directory must have been taken.
func (d *stateDir) read(name string) ([]byte, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // or a pipe in its place would hold up the start
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a file", d.file(name)))
	}
	return io.ReadAll(f)
}

// write replaces a file: after a crash it is the old one or the new one, and the new one when write has returned. The
// directory must have been taken.
func (d *stateDir) write(name string, content []byte) error {
	fresh := name + ".new"
	if err := d.root.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a crash
		return err
	}
	f, err := d.root.OpenFile(fresh, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := d.root.Rename(fresh, name); err != nil {
		return err
	}
	return d.self.Sync()
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
	if d.root != nil {
		if d.self != nil {
			d.self.Close() // the lock goes with it
		}
		d.root.Close()
		d.root, d.self = nil, nil
	}
}
