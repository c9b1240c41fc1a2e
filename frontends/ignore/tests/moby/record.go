// Fills in what moby's own matcher decides: `go run record.go < decisions.txt > new`.
//
// On Debian the packages golang-go and golang-github-moby-patternmatcher-dev are enough, with
// GO111MODULE=off and GOPATH=/usr/share/gocode.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/moby/patternmatcher"
)

// decide is 'x' if the path is excluded, '.' if not, 'w' or 'p' if only by the walk, which hands
// results down from directory to directory, or only by the plain comparison with all parents.
func decide(matcher *patternmatcher.PatternMatcher, path string) (string, error) {
	plain, err := matcher.MatchesOrParentMatches(path)
	if err != nil {
		return "", err
	}
	var info patternmatcher.MatchInfo
	walked := false
	for end := range path + "/" {
		if end < len(path) && path[end] != '/' {
			continue
		}
		walked, info, err = matcher.MatchesUsingParentResults(path[:end], info)
		if err != nil {
			return "", err
		}
	}
	switch {
	case plain && walked:
		return "x", nil
	case walked:
		return "w", nil
	case plain:
		return "p", nil
	}
	return ".", nil
}

func main() {
	var paths []string
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		switch {
		case lines.Text() == "" || fields[0] == "#":
		case fields[0] == "paths":
			paths = append(paths, fields[1:]...)
		default:
			fields[0] = ""
			matcher, err := patternmatcher.New(fields[1:])
			for _, path := range paths {
				if err != nil {
					break
				}
				var decision string
				decision, err = decide(matcher, path)
				fields[0] += decision
			}
			if err != nil {
				fields[0] = "refused"
			}
		}
		fmt.Println(strings.Join(fields, "\t"))
	}
}
