package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one mistake in a configuration file.
type Error struct {
	File    string
	Line    int    // from 1; 0 when the file could not be read at all
	Column  int    // from 1, counted in characters
	Path    string // such as tunnels[1].mtu; empty for the file as a whole
	Message string // what is wrong, the value, what is allowed, what to do
}

// Error returns "file:line:column: path: message".
func (e Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	if e.Path != "" {
		b.WriteString(": " + e.Path)
	}
	b.WriteString(": " + e.Message)
	return b.String()
}

// TunnelFault is a mistake in a field of the tunnel c.Tunnels[i] that only somebody who uses the configuration can find, such as a
// certificate that is none.
func (c *Config) TunnelFault(i int, field string, err error) Error {
	path := tunnelPath(i, field)
	d := &decoder{file: c.File, where: c.where}
	p := d.at(path)
	return Error{File: c.File, Line: p.line, Column: p.column, Path: path, Message: err.Error()}
}

// Errors is every mistake of a file, in the order of their positions. It is
// what Load and Parse return; errors.As finds it.
type Errors []Error

// Error returns the mistakes one a line.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// sorted puts es into the order of the file. The message decides last, so that
// the output does not depend on the order of the checks.
func (es Errors) sorted() Errors {
	slices.SortFunc(es, func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
	return es
}

// position is a place in the file, both numbers from 1.
type position struct{ line, column int }

func (p position) String() string { return fmt.Sprintf("line %d", p.line) }

// after reports whether p stands behind q in the file.
func (p position) after(q position) bool {
	return p.line > q.line || p.line == q.line && p.column > q.column
}
