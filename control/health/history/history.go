// Package history keeps what became of tunnels' health for thirty days: a line of JSON for each change of a state, in a file for each
// day (UTC). What a killed process has written stays; a line that is cut off is passed over.
package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// An Event is a change of a tunnel's state, as this node found it.
type Event struct {
	Time   time.Time `json:"time"`
	Tunnel string    `json:"tunnel"`
	Was    string    `json:"was"`
	State  string    `json:"state"`
	Why    string    `json:"why"`
	Leg    string    `json:"leg,omitempty"`
}

const (
	// Days is how long events are kept.
	Days = 30

	dir    = "health"
	suffix = ".jsonl"

	// maxDay bounds a day's file: some hundred thousand events.
	maxDay = 32 << 20
	// inMemory is how many events are there without a disk.
	inMemory = 1000
)

// A History keeps events. Its methods may be called by any goroutine.
type History struct {
	mu     sync.Mutex
	root   *os.Root // nil: there is no disk
	recent []Event  // the last ones, oldest first
	day    string
	file   *os.File
	size   int64
	failed error // why the last event is not on the disk
}

// Open keeps events in a directory; nil: in memory alone, the last thousand, until Keep.
func Open(root *os.Root) (*History, error) {
	h := &History{}
	if root == nil {
		return h, nil
	}
	return h, h.Keep(root)
}

// Keep has events kept in a directory from now on.
func (h *History) Keep(root *os.Root) error {
	if err := root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.root = root
	return nil
}

// Kept reports whether events are kept in a directory.
func (h *History) Kept() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.root != nil
}

// Add takes an event. It returns an error, once, when events cannot be written any more: the last thousand are in memory still.
func (h *History) Add(e Event) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.recent = append(h.recent, e); len(h.recent) > inMemory {
		h.recent = slices.Delete(h.recent, 0, len(h.recent)-inMemory)
	}
	before := h.failed
	if h.failed = h.write(e); before == nil {
		return h.failed
	}
	return nil
}

var errDayFull = errors.New("a day's file is as large as it may be: a tunnel's state changes all the time")

func (h *History) write(e Event) error {
	if h.root == nil {
		return nil
	}
	if day := e.Time.UTC().Format(time.DateOnly); day != h.day {
		if err := h.begin(day, e.Time); err != nil {
			return err
		}
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if h.size += int64(len(line)) + 1; h.size > maxDay {
		return errDayFull
	}
	_, err = h.file.Write(append(line, '\n'))
	return err
}

// begin opens the file of a day, and removes those that are too old.
func (h *History) begin(day string, now time.Time) error {
	h.closeFile()
	f, err := h.root.OpenFile(dir+"/"+day+suffix, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > 0 { // a crash may have cut the last line off
		last := make([]byte, 1)
		if _, err = f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			_, err = f.Write([]byte{'\n'})
		}
	}
	if err != nil {
		f.Close()
		return err
	}
	h.day, h.file, h.size = day, f, info.Size()
	oldest := now.UTC().AddDate(0, 0, -Days).Format(time.DateOnly)
	for _, d := range daysIn(h.root) {
		if d < oldest {
			_ = h.root.Remove(dir + "/" + d + suffix) // it is tried again tomorrow
		}
	}
	return nil
}

// daysIn lists the days that have files, oldest first.
func daysIn(root *os.Root) (list []string) {
	d, err := root.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1) // what could be read of it
	for _, name := range names {
		day, ok := strings.CutSuffix(name, suffix)
		if _, err := time.Parse(time.DateOnly, day); ok && err == nil {
			list = append(list, day)
		}
	}
	slices.Sort(list)
	return list
}

// Last returns the newest events since a time, most at most, oldest first.
func (h *History) Last(since time.Time, most int) []Event {
	h.mu.Lock()
	root, recent, failed := h.root, slices.Clone(h.recent), h.failed
	h.mu.Unlock()
	if root == nil || failed != nil {
		return newest(recent, since, most)
	}
	var list []Event // read without the lock: whoever adds has no time
	days := daysIn(root)
	for i := len(days) - 1; i >= 0 && len(list) < most && days[i] >= since.UTC().Format(time.DateOnly); i-- {
		list = append(read(root, days[i]), list...)
	}
	return newest(list, since, most)
}

func newest(list []Event, since time.Time, most int) []Event {
	list = slices.DeleteFunc(list, func(e Event) bool { return e.Time.Before(since) })
	return list[max(0, len(list)-most):]
}

// read returns the events of a day, as far as they are whole.
func read(root *os.Root, day string) (list []Event) {
	f, err := root.Open(dir + "/" + day + suffix)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, maxDay))
	return parse(text)
}

func parse(text []byte) (list []Event) {
	for line := range bytes.Lines(text) {
		var e Event
		if json.Unmarshal(line, &e) == nil && e.Tunnel != "" && !e.Time.IsZero() {
			list = append(list, e)
		}
	}
	return list
}

// Close closes the file.
func (h *History) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closeFile()
}

func (h *History) closeFile() {
	if h.file != nil {
		h.file.Close()
		h.file, h.day = nil, ""
	}
}
