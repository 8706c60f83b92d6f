package ui

import "strings"

// Change says what became of a line.
type Change byte

// The changes of a line.
const (
	Same    Change = ' '
	Added   Change = '+'
	Removed Change = '-'
)

// DiffLine is a line of one side or of both; a number is zero where the line is not.
type DiffLine struct {
	Change   Change
	Old, New int
	Text     string
}

// maxDiffCells bounds the table of the longest common subsequence; beyond it a changed region is shown as removed and added whole.
const maxDiffCells = 4_000_000

// DiffLines compares two texts line by line.
func DiffLines(before, after string) []DiffLine {
	a, b := splitLines(before), splitLines(after)
	start := 0
	for start < len(a) && start < len(b) && a[start] == b[start] {
		start++
	}
	endA, endB := len(a), len(b)
	for endA > start && endB > start && a[endA-1] == b[endB-1] {
		endA--
		endB--
	}
	var out []DiffLine
	for i := range start {
		out = append(out, DiffLine{Same, i + 1, i + 1, a[i]})
	}
	out = append(out, diffMiddle(a[start:endA], b[start:endB], start)...)
	for i := endA; i < len(a); i++ {
		out = append(out, DiffLine{Same, i + 1, endB + i - endA + 1, a[i]})
	}
	return out
}

func splitLines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

// diffMiddle is the classic table: lengths[i][j] is the longest common subsequence of a[i:] and b[j:].
func diffMiddle(a, b []string, offset int) []DiffLine {
	var out []DiffLine
	i, j := 0, 0
	if len(a)*len(b) <= maxDiffCells {
		width := len(b) + 1
		lengths := make([]int32, (len(a)+1)*width)
		for x := len(a) - 1; x >= 0; x-- {
			for y := len(b) - 1; y >= 0; y-- {
				if a[x] == b[y] {
					lengths[x*width+y] = lengths[(x+1)*width+y+1] + 1
				} else {
					lengths[x*width+y] = max(lengths[(x+1)*width+y], lengths[x*width+y+1])
				}
			}
		}
		for i < len(a) && j < len(b) {
			switch {
			case a[i] == b[j]:
				out = append(out, DiffLine{Same, offset + i + 1, offset + j + 1, a[i]})
				i++
				j++
			case lengths[(i+1)*width+j] >= lengths[i*width+j+1]:
				out = append(out, DiffLine{Removed, offset + i + 1, 0, a[i]})
				i++
			default:
				out = append(out, DiffLine{Added, 0, offset + j + 1, b[j]})
				j++
			}
		}
	}
	for ; i < len(a); i++ {
		out = append(out, DiffLine{Removed, offset + i + 1, 0, a[i]})
	}
	for ; j < len(b); j++ {
		out = append(out, DiffLine{Added, 0, offset + j + 1, b[j]})
	}
	return out
}

// DiffRow is a row of a comparison side by side. Folded counts the unchanged lines that it stands for.
type DiffRow struct {
	Left, Right *DiffLine
	Folded      int
}

const diffContext = 3

// SideBySide pairs removed with added lines and folds what is unchanged beyond three lines of context.
func SideBySide(lines []DiffLine) []DiffRow {
	var rows []DiffRow
	for i := 0; i < len(lines); {
		if lines[i].Change == Same {
			rows = append(rows, DiffRow{Left: &lines[i], Right: &lines[i]})
			i++
			continue
		}
		var removed, added []*DiffLine
		for ; i < len(lines) && lines[i].Change != Same; i++ {
			if lines[i].Change == Removed {
				removed = append(removed, &lines[i])
			} else {
				added = append(added, &lines[i])
			}
		}
		for k := range max(len(removed), len(added)) {
			var r DiffRow
			if k < len(removed) {
				r.Left = removed[k]
			}
			if k < len(added) {
				r.Right = added[k]
			}
			rows = append(rows, r)
		}
	}
	return fold(rows)
}

func (r DiffRow) same() bool { return r.Left != nil && r.Left == r.Right }

func fold(rows []DiffRow) []DiffRow {
	keep := make([]bool, len(rows))
	for i, r := range rows {
		if !r.same() {
			for k := max(0, i-diffContext); k <= min(len(rows)-1, i+diffContext); k++ {
				keep[k] = true
			}
		}
	}
	var out []DiffRow
	for i := 0; i < len(rows); {
		if keep[i] {
			out = append(out, rows[i])
			i++
			continue
		}
		run := i
		for run < len(rows) && !keep[run] {
			run++
		}
		if run-i == 1 { // a fold of one line would hide as much as it takes
			out = append(out, rows[i])
		} else {
			out = append(out, DiffRow{Folded: run - i})
		}
		i = run
	}
	return out
}
