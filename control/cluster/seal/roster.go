package seal

import (
	"fmt"
	"strings"
	"unicode"
)

// A Roster is the nodes that are admitted: fingerprints by name.
type Roster map[string]string

// nameRunes are what names of nodes are made of.
const nameRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

// ParseRoster reads a roster: a line for each node, its name and its fingerprint; # begins a comment. Errors begin with the line.
func ParseRoster(text string) (Roster, error) {
	r, lines := Roster{}, map[string]int{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		words := strings.FieldsFunc(line, unicode.IsSpace)
		if len(words) == 0 {
			continue
		}
		if len(words) != 2 {
			return nil, fmt.Errorf("%d: %d words: a line has a node's name and its fingerprint, as `causeway cluster identity` prints it", n, len(words))
		}
		if name := words[0]; strings.Trim(name, nameRunes) != "" {
			return nil, fmt.Errorf("%d: %q is no name of a node: letters, digits, '.', '_' and '-' are allowed", n, name)
		}
		if err := CheckFingerprint(words[1]); err != nil {
			return nil, fmt.Errorf("%d: %w", n, err)
		}
		for _, w := range words {
			if first := lines[w]; first != 0 {
				return nil, fmt.Errorf("%d: %s stands on line %d already: each node has one name and one identity", n, w, first)
			}
			lines[w] = n
		}
		r[words[0]] = words[1]
	}
	return r, nil
}

// Admits reports whether a node of this name with these keys is admitted.
func (r Roster) Admits(name string, p Public) bool {
	f, ok := r[name]
	return ok && f == p.Fingerprint()
}
