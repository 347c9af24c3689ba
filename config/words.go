package config

import (
	"fmt"
	"strings"
)

// oneOf lists words for people: "a, b or c".
func oneOf(last string, words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	n := len(words) - 1
	return strings.Join(words[:n], ", ") + " " + last + " " + words[n]
}

// suggest says which of the known words was probably meant, or lists them all
// if they fit into a line or two.
func suggest(word string, known []string) string {
	const most = 20
	if w, ok := nearest(word, known); ok {
		return "did you mean " + quote(w) + "?"
	}
	switch {
	case len(known) == 0:
		return "there are none"
	case len(known) > most:
		return fmt.Sprintf("none of the %d that there are is like it", len(known))
	}
	return "allowed are " + oneOf("and", known)
}

// nearest returns the known word that is fewest edits away, if these are few
// for the word's length: one edit in three letters, two in six, three at most.
func nearest(word string, known []string) (string, bool) {
	const most = 64 // longer words are no typing mistakes; bounds the work
	if len(word) > most {
		return "", false
	}
	best, found := "", min(3, len(word)/3)+1
	for _, k := range known {
		if n := edits(strings.ToLower(word), strings.ToLower(k)); n < found {
			best, found = k, n
		}
	}
	return best, best != ""
}

// edits returns how many bytes have to be changed, added or removed to make b
// of a, where two neighbours that are swapped count once.
func edits(a, b string) int {
	before, row, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next[0] = i + 1
		for j := range len(b) {
			substitute := row[j]
			if a[i] != b[j] {
				substitute++
			}
			next[j+1] = min(substitute, next[j]+1, row[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row, next = row, next, before
	}
	return row[len(b)]
}
