create table visits (number int);
insert into visits values (42);
