package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// A Secret is a key. It is not printed.
type Secret []byte

// String hides the key.
func (s Secret) String() string { return fmt.Sprintf("secret of %d bytes", len(s)) }

// GoString hides the key.
func (s Secret) GoString() string { return s.String() }

// MarshalText hides the key.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

var keyFileSchema = schema{fields: []string{"file"}}

// secret returns a key of that many bytes, in hexadecimal digits, here or in a
// file of its own. Size 0: not known.
func (v value) secret(size int) (Secret, bool) {
	text, ok := v.secretText()
	if !ok {
		return nil, false
	}
	text = strings.TrimPrefix(strings.TrimSpace(text), "0x")
	key, err := hex.DecodeString(text)
	switch {
	case err != nil:
		v.fail("is not in hexadecimal digits, two for each byte: %s", hexFault(text))
	case size > 0 && len(key) != size:
		v.fail("has %d bytes: this encryption needs %d, in the order of ip xfrm", len(key), size)
	default:
		return key, true
	}
	return nil, false
}

// hexFault says what keeps text from being a key, and shows nothing of it.
func hexFault(text string) string {
	at := strings.IndexFunc(text, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", r) })
	switch {
	case strings.HasPrefix(text, "/"):
		return "a path is written {file: PATH}"
	case at >= 0 && strings.ContainsRune(" \t\r\n", rune(text[at])):
		return fmt.Sprintf("behind %d digits there is a space or a new line; write one line without spaces, as xxd -p -c 64 does", at)
	case at >= 0:
		return fmt.Sprintf("behind %d digits there is something else", at)
	}
	return fmt.Sprintf("there are %d, an odd number", len(text))
}

func (v value) secretText() (string, bool) {
	if _, ok := v.node.(ast.MapNode); !ok {
		if n, ok := v.node.(*ast.IntegerNode); ok {
			return n.Token.Value, true // digits alone
		}
		s, ok := v.node.(*ast.StringNode)
		if !ok {
			v.fail("must be a key in hexadecimal digits, or {file: PATH}")
			return "", false
		}
		return s.Value, true
	}
	f, ok := v.mapping(keyFileSchema)
	if !ok {
		return "", false
	}
	p, ok := f.need("file", "the path of a file that only its owner may read")
	if !ok {
		return "", false
	}
	path, ok := p.absolutePath()
	if !ok {
		return "", false
	}
	text, err := v.d.secretOf(secretFile+path, func() (string, error) { return readSecret(path) })
	if err != nil {
		p.fail("%v", err)
		return "", false
	}
	return text, true
}

// Limits of files, in bytes: more than any key, and more than any chain of certificates takes.
const (
	secretLimit = 4096
	pemLimit    = 1 << 20
)

// readSecret reads a file that only its owner may read. Its errors are of one
// line, whatever the path is.
func readSecret(path string) (string, error) {
	f, err := openFile(path, secretLimit, true)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, secretLimit))
	if err != nil {
		return "", atPath(path, err)
	}
	return string(b), nil
}

// openFile opens a regular file of at most limit bytes; a private one only if
// no other than root and the daemon's user can read or replace it.
func openFile(path string, limit int64, private bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe does not keep us waiting
	if err != nil {
		return nil, atPath(path, err)
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() > limit) {
		err = errors.New("not a file with a key")
		if !private {
			err = errors.New("not a file with certificates")
		}
	}
	if err == nil && private {
		err = othersMay(info)
	}
	if err != nil {
		f.Close()
		return nil, atPath(path, err)
	}
	return f, nil
}

// atPath names the file of an error once, in one line.
func atPath(path string, err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	return fmt.Errorf("%s: %w", quote(path), err)
}

// othersMay says who else has a private file.
func othersMay(info fs.FileInfo) error {
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("others may read it (%04o): chmod 600", info.Mode().Perm())
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Uid != 0 && int(s.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d, who may read it and write another key there: chown it to root or to the daemon's user", s.Uid)
	}
	return nil
}

// pemFile returns the path of a file that is there. A private one holds a key.
func (v value) pemFile(private bool) string {
	path, ok := v.absolutePath()
	if !ok {
		return ""
	}
	f, err := openFile(path, pemLimit, private)
	if err != nil {
		v.fail("%v", err)
		return ""
	}
	f.Close()
	return path
}

var sharedSchema = schema{fields: []string{"file", "env"}}

// preShared returns a pre-shared key: the text itself, or what a file or an
// environment variable has.
func (v value) preShared() (Secret, bool) {
	switch n := v.node.(type) {
	case ast.MapNode:
		return v.preSharedElsewhere()
	case *ast.IntegerNode:
		if !oddNumber(n.Token.Value) {
			return v.sharedOctets(n.Token.Value) // digits alone, or 0x and digits
		}
	case *ast.StringNode:
		if n.Token.Type != token.StringType || !oddNumber(n.Value) {
			return v.sharedOctets(n.Value)
		}
	}
	v.fail("must be {file: PATH}, {env: NAME} or a text in quotes") // and is not shown
	return nil, false
}

var (
	digitsAlone = regexp.MustCompile(`^([0-9]+|0x.*)$`)
	numberLike  = regexp.MustCompile(`^[-+]?(0[ob][0-9_]+|\.?[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?)$`)
)

// oddNumber reports whether a text without quotes is a number to some readers of YAML, which they would write in another way: 1e5 is 100000.
func oddNumber(text string) bool {
	return numberLike.MatchString(text) && !digitsAlone.MatchString(text)
}

func (v value) preSharedElsewhere() (Secret, bool) {
	if !v.hasOnly(sharedSchema.fields) {
		v.fail("must be {file: PATH}, {env: NAME} or a text in quotes")
		return nil, false
	}
	f, ok := v.mapping(sharedSchema)
	if !ok {
		return nil, false
	}
	file, inFile := f.get("file")
	env, inEnv := f.get("env")
	switch {
	case f.given["file"] == f.given["env"]:
		v.fail("must have either file or env: write {file: PATH} or {env: NAME}")
	case inFile:
		return file.sharedFile()
	case inEnv:
		return env.sharedVariable()
	}
	return nil, false
}

// hasOnly reports whether a mapping has no other fields than these. Others may
// be a key that was written at a wrong place, and are not shown.
func (v value) hasOnly(names []string) bool {
	node, _ := v.node.(ast.MapNode)
	for i := node.MapRange(); i.Next(); {
		if key, ok := i.Key().(*ast.StringNode); !ok || !slices.Contains(names, key.Value) {
			return false
		}
	}
	return true
}

// hiddenText is text that may be a key at a wrong place, and is not shown.
func (v value) hiddenText(what string) (string, bool) {
	n, ok := v.node.(*ast.StringNode)
	if !ok {
		v.fail("must be %s", what)
		return "", false
	}
	return n.Value, true
}

// sharedFile reads the key of a file, a line with or without its end.
func (v value) sharedFile() (Secret, bool) {
	path, ok := v.hiddenText("an absolute path")
	switch {
	case !ok:
		return nil, false
	case !strings.HasPrefix(path, "/"):
		v.fail("is not an absolute path: begin it with /") // it may be the key, and is not shown
		return nil, false
	case strings.ContainsRune(path, 0):
		v.fail("has a zero in the path of a file")
		return nil, false
	}
	text, err := v.d.secretOf(secretFile+path, func() (string, error) { return readSecret(path) })
	if err != nil {
		v.fail("%v", err)
		return nil, false
	}
	return v.sharedOctets(strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r"))
}

func (v value) sharedVariable() (Secret, bool) {
	name, ok := v.hiddenText("the name of an environment variable")
	if !ok {
		return nil, false
	}
	if !variableName.MatchString(name) {
		v.fail("is not the name of an environment variable: letters, digits and '_'") // it may be the key, and is not shown
		return nil, false
	}
	text, err := v.d.secretOf(secretVariable+name, func() (string, error) {
		text, ok := os.LookupEnv(name)
		if !ok {
			return "", fmt.Errorf("%s is not in the environment of this process: set it, for the service also", quote(name))
		}
		return text, nil
	})
	if err != nil {
		v.fail("%v", err)
		return nil, false
	}
	return v.sharedOctets(text)
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// sharedOctets are those of a pre-shared key: the text's, or behind 0x those
// that its hexadecimal digits say (RFC 7296 2.15 demands both). Nothing of a key is in a message.
func (v value) sharedOctets(text string) (Secret, bool) {
	digits, isHex := strings.CutPrefix(text, "0x")
	switch {
	case text == "":
		v.fail("is empty: the two ends have a key in common, of 16 bytes at least")
	case len(text) > secretLimit:
		v.fail("has %d bytes: write %d at most", len(text), secretLimit)
	case strings.ContainsFunc(text, unicode.IsControl):
		v.fail("has a new line, a tab or another character that cannot be printed: a key is one line; write octets as 0x and hexadecimal digits")
	case !isHex:
		return Secret(text), true
	default:
		if key, err := hex.DecodeString(digits); err == nil && len(key) > 0 {
			return key, true
		}
		v.fail("begins with 0x and is not in hexadecimal digits, two for each byte: %s", hexFault(digits))
	}
	return nil, false
}
