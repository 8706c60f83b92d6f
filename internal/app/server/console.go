package server

import "net/http"

func (s *Server) consoleHandler() (http.Handler, error) { return http.NotFoundHandler(), nil }
