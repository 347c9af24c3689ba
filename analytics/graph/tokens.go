package graph

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"causeway/analytics/store"
)

// Tokens are the bearer tokens of a file, which only its owner may read. A line admits one:
//
//	SHA256 ACCOUNT[,ACCOUNT...] [NAME]
//
// SHA256 is the hash of the token in 64 hex digits: the file does not give away the tokens. The accounts are those whose rows the
// token may read; * is all of them. NAME is what logs call it. Empty lines and lines that begin with # say nothing. To make a
// token for account acme:
//
//	token=$(openssl rand -hex 32); echo "give this to the customer: $token"
//	printf %s "$token" | sha256sum | sed 's/ .*/ acme noc/' >> /etc/causeway/tokens
//
// The hash has no salt, which is safe for random tokens alone: so one of fewer than 32 characters is never admitted.
type Tokens struct {
	path   string
	grants atomic.Pointer[[]grant]
}

// Bounds of tokens and of their file.
const (
	minToken   = 32
	maxToken   = 512
	tokenFile  = 1 << 20 // bytes
	maxGrants  = 10000
	maxAccount = 255 // bytes of a name
)

// A grant is what a token allows.
type grant struct {
	hash     [sha256.Size]byte
	accounts []string
	name     string
}

// covers reports whether the token may see the account. Only a token for all sees store.Operator, which is everybody's rows.
func (g *grant) covers(tag string) bool {
	if tag == "" {
		return false
	}
	return slices.Contains(g.accounts, store.Operator) || tag != store.Operator && slices.Contains(g.accounts, tag)
}

// LoadTokens reads a file of tokens.
func LoadTokens(path string) (*Tokens, error) {
	t := &Tokens{path: path}
	return t, t.Reload()
}

// Reload reads the file again. Tokens that are gone are not admitted from then on, and their streams end. On an error all stays as
// it was.
func (t *Tokens) Reload() error {
	data, err := readPrivate(t.path)
	if err != nil {
		return err
	}
	grants, err := parseTokens(t.path, data)
	if err != nil {
		return err
	}
	t.grants.Store(&grants)
	return nil
}

// find returns what a token allows.
func (t *Tokens) find(token string) (grant, bool) {
	if len(token) < minToken || len(token) > maxToken {
		return grant{}, false
	}
	return t.byHash(sha256.Sum256([]byte(token)))
}

// byHash looks at every grant, and at all of its bytes: how long it takes says nothing of the hashes.
func (t *Tokens) byHash(hash [sha256.Size]byte) (found grant, ok bool) {
	for _, g := range *t.grants.Load() {
		if subtle.ConstantTimeCompare(g.hash[:], hash[:]) == 1 {
			found, ok = g, true
		}
	}
	return found, ok
}

// readPrivate reads a regular file that nobody but root and the daemon's user can read or replace.
func readPrivate(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe does not keep us waiting
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := private(info); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return io.ReadAll(io.LimitReader(f, tokenFile))
}

func private(info fs.FileInfo) error {
	switch s, _ := info.Sys().(*syscall.Stat_t); {
	case !info.Mode().IsRegular() || info.Size() > tokenFile:
		return errors.New("not a file of tokens: it must be a regular file of at most 1 MiB")
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("others may read or change it (%04o): chmod 600", info.Mode().Perm())
	case s != nil && s.Uid != 0 && int(s.Uid) != os.Geteuid():
		return fmt.Errorf("it belongs to user %d, who may admit himself: chown it to root or to the daemon's user", s.Uid)
	}
	return nil
}

// parseTokens reads the lines of a file. All that is wrong is said at once, and never with the text of a line: it may be a token
// that somebody took for the hash.
func parseTokens(file string, data []byte) ([]grant, error) {
	var grants []grant
	var errs []error
	lines := map[[sha256.Size]byte]int{}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		fields := strings.Fields(string(line))
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		g, err := parseGrant(fields)
		if err == nil && lines[g.hash] != 0 {
			err = fmt.Errorf("the token of line %d again: name all its accounts there", lines[g.hash])
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", file, n, err))
			continue
		}
		lines[g.hash] = n
		grants = append(grants, g)
	}
	if len(grants) > maxGrants {
		errs = append(errs, fmt.Errorf("%s: %d tokens: at most %d are allowed", file, len(grants), maxGrants))
	}
	return grants, errors.Join(errs...)
}

func parseGrant(fields []string) (grant, error) {
	var g grant
	if len(fields) < 2 || len(fields) > 3 {
		return g, fmt.Errorf("%d fields: write SHA256 ACCOUNT[,ACCOUNT...] [NAME], with blanks between", len(fields))
	}
	hash, err := hex.DecodeString(fields[0])
	if err != nil || len(hash) != sha256.Size {
		return g, errors.New("the first field is not the SHA-256 of a token in 64 hex digits; never write the token itself")
	}
	copy(g.hash[:], hash)
	g.accounts = strings.Split(fields[1], ",")
	for _, a := range g.accounts {
		if a == "" || len(a) > maxAccount || a == store.Operator && len(g.accounts) > 1 {
			return g, errors.New("the second field must be names of accounts with a comma between, none empty or longer than 255 bytes, or * alone")
		}
	}
	g.name = fields[0][:8]
	if len(fields) == 3 {
		g.name = fields[2]
	}
	return g, nil
}
