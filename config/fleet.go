package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strconv"
	"strings"
)

// A Fleet is what all nodes of a cluster have in common: accounts, tunnels, and routes into tunnels. An operator applies it once; each
// node reads it together with its own file (WithFleet). It has secrets: it is not to be printed.
type Fleet struct {
	Name string `json:"name"` // of the file that it came from; it begins errors
	Text []byte `json:"text"` // YAML, as it was written
	// Secrets are the keys that Text names, as they were read where it was applied, by secretFile or secretVariable and the name.
	Secrets map[string][]byte `json:"secrets,omitempty"`
}

// String hides the secrets.
func (f *Fleet) String() string {
	return fmt.Sprintf("%s with %d secrets", f.Name, len(f.Secrets))
}

// What the names in Fleet.Secrets begin with.
const (
	secretFile     = "file:"
	secretVariable = "env:"
)

var fleetSchema = schema{
	fields: []string{"accounts", "tunnels", "routes"},
	refused: map[string]string{
		"node":       ownFile,
		"interfaces": ownFile,
		"workers":    ownFile,
		"endpoints":  ownFile,
		"metrics":    ownFile,
		"control":    ownFile,
		"cluster":    ownFile,
	},
}

const ownFile = "is each node's own: it belongs into the file that the node is started with"

// LoadFleet reads a document of a fleet, and the keys that it names, from this machine. Its errors are Errors: what can be found wrong
// without the nodes' own files.
func LoadFleet(path string) (*Fleet, error) {
	data, _, err := readFile(path)
	if err != nil {
		var why *fs.PathError
		if errors.As(err, &why) {
			err = why.Err
		}
		return nil, Errors{{File: path, Message: "cannot be read: " + err.Error()}}
	}
	f := &Fleet{Name: path, Text: data, Secrets: map[string][]byte{}}
	d := &decoder{file: path, where: map[string]position{}, ofFleet: true, noted: f.Secrets}
	d.fleet(data, &Config{})
	if len(d.errs) > 0 {
		return nil, d.errs.sorted()
	}
	return f, nil
}

// fleet decodes a document of a fleet into c, which has its own routes already. It is not ok if nothing of it could be read.
func (d *decoder) fleet(data []byte, c *Config) (ok bool) {
	if line, deep := nestedTooDeep(data); deep {
		d.failAt(position{line: line, column: 1}, "", "is nested too deeply for a configuration: at most 64 levels are read")
		return false
	}
	root, ok := d.document(data)
	if !ok {
		return false
	}
	f, ok := root.mapping(fleetSchema)
	if !ok {
		return false
	}
	if v, ok := f.get("accounts"); ok {
		c.Accounts = d.accounts(v)
	}
	if v, ok := f.need("tunnels", "those that all nodes have; `tunnels: []` takes all away"); ok {
		c.Tunnels = d.tunnels(v)
	}
	if v, ok := f.get("routes"); ok {
		list := d.routes(v)
		for i, r := range list {
			if r.Interface != "" {
				d.failAt(d.at(routePath(i, "interface")), routePath(i, "interface"), "%s is an interface of one node: write routes to routers on its links into that node's own file", quote(r.Interface))
			}
		}
		c.Routes = append(c.Routes, list...)
	}
	return true
}

// HasTunnels reports whether the file has tunnels or accounts: then the node does not follow the fleet's.
func (c *Config) HasTunnels() bool {
	for _, section := range []string{"tunnels", "accounts"} {
		if at, given := c.where[section]; given && !at.fleet {
			return true
		}
	}
	return false
}

// WithFleet reads the file of c again together with a fleet's document, whose accounts and tunnels take the place of the file's. Errors are
// as those of Parse, in both texts; the files that c names are looked at again.
func (c *Config) WithFleet(f *Fleet) (*Config, error) {
	return parse(c.File, c.text, c.open, f)
}

// join decodes a fleet's document beside the file that is decoded. It is not ok if nothing of it could be read.
func (d *decoder) join(f *Fleet, c *Config) (ok bool) {
	own := len(c.Routes)
	g := &decoder{file: f.Name, where: map[string]position{}, ofFleet: true, carried: f.Secrets}
	if g.carried == nil {
		g.carried = map[string][]byte{}
	}
	ok = g.fleet(f.Text, c)
	d.errs = append(d.errs, g.errs...)
	for path, at := range d.where {
		at.file = d.file
		d.where[path] = at
	}
	for path, at := range g.where {
		at.file, at.fleet, at.routesFrom = f.Name, true, own
		if rest, ok := strings.CutPrefix(path, "routes["); ok {
			path = "routes[" + shifted(rest, own)
		}
		if path != "" && path != "routes" { // those of the file itself stay
			d.where[path] = at
		}
	}
	return ok
}

// shifted adds n to the number at the beginning of what follows a bracket.
func shifted(rest string, n int) string {
	number, after, _ := strings.Cut(rest, "]")
	i, _ := strconv.Atoi(number)
	return strconv.Itoa(i+n) + "]" + after
}

// secretOf is a key that a document names: of this machine, as read gives it, or carried with the document.
func (d *decoder) secretOf(name string, read func() (string, error)) (string, error) {
	if d.carried != nil {
		key, ok := d.carried[name]
		if !ok {
			return "", fmt.Errorf("%s was not carried with the document: apply it again", quote(name))
		}
		return string(key), nil
	}
	text, err := read()
	if err == nil && d.noted != nil {
		d.noted[name] = []byte(text)
	}
	return text, err
}

// Same reports whether two documents say the same.
func (f *Fleet) Same(g *Fleet) bool {
	return string(f.Text) == string(g.Text) && maps.EqualFunc(f.Secrets, g.Secrets, func(a, b []byte) bool { return string(a) == string(b) })
}
