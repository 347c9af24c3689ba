package xsk

type Socket struct{}
