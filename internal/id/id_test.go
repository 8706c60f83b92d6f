package id_test

import (
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ambit.dev/ambit/internal/id"
)

func TestNewIsParsedByItsOwnKindOnly(t *testing.T) {
	s := id.New[id.Session]()
	got, err := id.Parse[id.Session](string(s))
	require.NoError(t, err)
	require.Equal(t, s, got)

	_, err = id.Parse[id.Project](string(s))
	require.ErrorIs(t, err, id.ErrMalformed)
	require.Equal(t, "ses", id.PrefixOf(string(s)))
}

func TestIdsOfLaterMillisecondsSortLater(t *testing.T) {
	var made []string
	for range 1000 {
		made = append(made, string(id.New[id.Event]()))
	}
	require.True(t, sort.StringsAreSorted(made), "ids made in order sort in order")
}

func TestFloorDividesTheIdsByTheirTime(t *testing.T) {
	before := id.New[id.Event]()
	now := time.Now()
	require.Less(t, string(before), string(id.Floor[id.Event](now.Add(time.Minute))))
	require.Less(t, string(id.Floor[id.Event](now.Add(-time.Minute))), string(before))
	require.LessOrEqual(t, string(id.Floor[id.Event](now)), string(id.New[id.Event]()))
	_, err := id.Parse[id.Event](string(id.Floor[id.Event](now)))
	require.NoError(t, err)
}

func TestParseRefuses(t *testing.T) {
	good := string(id.New[id.Agent]())
	for name, s := range map[string]string{
		"empty":           "",
		"prefix alone":    "agt_",
		"short":           good[:len(good)-1],
		"long":            good + "0",
		"upper case":      strings.ToUpper(good),
		"letter u":        good[:10] + "u" + good[11:],
		"over 128 bits":   "agt_8" + good[5:],
		"other prefix":    "ses_" + good[4:],
		"no underscore":   strings.Replace(good, "_", "-", 1),
		"multibyte runes": "agt_" + strings.Repeat("é", 13),
	} {
		_, err := id.Parse[id.Agent](s)
		require.ErrorIs(t, err, id.ErrMalformed, name)
	}
}

func TestFirstAt(t *testing.T) {
	now := time.Now()
	made := id.New[id.Session]()
	require.LessOrEqual(t, id.FirstAt[id.Session](now), made)
	require.Greater(t, id.FirstAt[id.Session](now.Add(time.Minute)), made)
	_, err := id.Parse[id.Session](string(id.FirstAt[id.Session](now)))
	require.NoError(t, err)
	require.Equal(t, id.Agent("agt_00000000000000000000000000"), id.FirstAt[id.Agent](time.Unix(-5, 0)))
	rapid.Check(t, func(t *rapid.T) {
		a, b := time.UnixMilli(rapid.Int64Range(0, 1<<47).Draw(t, "a")), time.UnixMilli(rapid.Int64Range(0, 1<<47).Draw(t, "b"))
		require.Equal(t, a.Before(b), id.FirstAt[id.Session](a) < id.FirstAt[id.Session](b))
	})
}
