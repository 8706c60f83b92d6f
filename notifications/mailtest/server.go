// Package mailtest is an SMTP server for tests: it listens on loopback, keeps what it is given, and fails when told to.
//
// It owns nothing but the receiving end of SMTP, as far as a sender without TLS needs it. Only tests import it.
package mailtest

import (
	"bufio"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/textproto"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Message is a mail as it arrived.
type Message struct {
	To        string
	Subject   string
	MessageID string
	Text      string
}

var linkPattern = regexp.MustCompile(`https?://\S+`)

// Link returns the first link in the text, or "".
func (m Message) Link() string { return linkPattern.FindString(m.Text) }

// Server receives mail. Make it with New.
type Server struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu       sync.Mutex
	messages []Message
	failures []string
	conns    map[net.Conn]struct{}
}

// New returns a server that runs until the test ends.
func New(t testing.TB) *Server {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &Server{listener: l, conns: map[net.Conn]struct{}{}}
	s.wg.Go(s.accept)
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		s.mu.Lock()
		for c := range s.conns {
			_ = c.Close()
		}
		s.mu.Unlock()
		s.wg.Wait()
	})
	return s
}

// URL is the server's address in the form that the mailer's configuration takes.
func (s *Server) URL() string { return "smtp://" + s.listener.Addr().String() + "?tls=none" }

// Fail makes the next mail be refused with this reply, such as "451 try later", in place of being taken.
func (s *Server) Fail(reply string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, reply)
}

// Messages returns what was taken so far.
func (s *Server) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Message(nil), s.messages...)
}

// Next waits for the n-th message, counted from zero.
func (s *Server) Next(t testing.TB, n int) Message {
	t.Helper()
	require.Eventually(t, func() bool { return len(s.Messages()) > n }, 20*time.Second, 10*time.Millisecond, "mail %d never came", n)
	return s.Messages()[n]
}

func (s *Server) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		s.wg.Go(func() {
			s.converse(c)
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
			_ = c.Close()
		})
	}
}

func (s *Server) converse(c net.Conn) {
	r := textproto.NewReader(bufio.NewReader(c))
	say := func(line string) bool { _, err := fmt.Fprint(c, line+"\r\n"); return err == nil }
	say("220 mailtest ESMTP")
	var to string
	for {
		line, err := r.ReadLine()
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		switch verb {
		case "EHLO", "HELO":
			say("250-mailtest\r\n250-8BITMIME\r\n250 SMTPUTF8")
		case "RCPT":
			to = strings.Trim(line[strings.Index(line, "<"):], "<> ")
			say("250 ok")
		case "DATA":
			say("354 go on")
			body, err := io.ReadAll(r.DotReader())
			if err != nil {
				return
			}
			say(s.take(to, string(body)))
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func (s *Server) take(to, raw string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failures) > 0 {
		reply := s.failures[0]
		s.failures = s.failures[1:]
		return reply
	}
	parsed, err := mail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		return "554 " + err.Error()
	}
	var body io.Reader = parsed.Body
	if strings.EqualFold(parsed.Header.Get("Content-Transfer-Encoding"), "quoted-printable") {
		body = quotedprintable.NewReader(body)
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return "554 " + err.Error()
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(parsed.Header.Get("Subject"))
	if err != nil {
		return "554 " + err.Error()
	}
	s.messages = append(s.messages, Message{
		To: to, Subject: subject, MessageID: parsed.Header.Get("Message-ID"), Text: strings.ReplaceAll(string(text), "\r\n", "\n"),
	})
	return "250 taken"
}
