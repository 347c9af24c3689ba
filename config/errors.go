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
	return d.errorAt(d.at(path), path, err.Error())
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
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
	return es
}

// position is a place in the file, both numbers from 1, or in the document of the fleet.
type position struct {
	line, column int
	file         string // "": there is but one
	fleet        bool   // it is in the document of the fleet
	routesFrom   int    // what the number of the document's first route is, as a route of Config
}

func (p position) String() string {
	if p.file != "" {
		return fmt.Sprintf("line %d of %s", p.line, p.file)
	}
	return fmt.Sprintf("line %d", p.line)
}

// errorAt is a mistake at a place. Routes of the fleet's document have the numbers that they have there.
func (d *decoder) errorAt(at position, path, message string) Error {
	e := Error{d.file, at.line, at.column, path, message}
	if at.fleet {
		e.File = at.file
		if rest, ok := strings.CutPrefix(path, "routes["); ok {
			e.Path = "routes[" + shifted(rest, -at.routesFrom)
		}
	}
	return e
}

// after reports whether p stands behind q in the file.
func (p position) after(q position) bool {
	return p.line > q.line || p.line == q.line && p.column > q.column
}
